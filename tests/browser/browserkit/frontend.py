"""ComfyUI's own front end in a browser tab, driven through its buttons and read through its own objects."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, Page

READY_MS = 90_000
RUN_MS = 120_000
ACTION_MS = 20_000
JPEG_QUALITY = 85
MARGIN_PX = 20

Workflow = Mapping[str, Any]

HOST_NOISE = (
    # A fresh user folder has none of these files; the front end asks for them all the same.
    re.compile(r"status of 404 .*/(user\.css|userdata\b.*)$"),
    # Workflows that load a picture or a video name one that a fresh input folder lacks.
    re.compile(r"status of 404 .*/view\?type=input&filename=(example\.png|clip\.mp4)"),
    re.compile(r"ComfyApp graph accessed before initialization"),
    # What the front end wants from the internet is no concern of these tests; its own policy forbids most of it.
    re.compile(r"(Connecting to|Fetch API cannot load) '?https://.*Content Security Policy", re.DOTALL),
    re.compile(r"Failed to load resource.* https?://(?!127\.0\.0\.1)"),
)

_READY = "() => !!(window.app && app.vueAppReady && app.extensionManager && app.rootGraph)"

# Keeps what the server says of a run.
_RECORD = """() => {
    window.flotillaRun = {ended: {}, progress: {}, error: null};
    if (window.flotillaHears) return;
    window.flotillaHears = true;
    app.api.addEventListener('progress', event => {
        const {node, value, max} = event.detail;
        (window.flotillaRun.progress[node] ??= []).push([value, max]);
    });
    app.api.addEventListener('execution_error', event => { window.flotillaRun.error = event.detail; });
    for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
        app.api.addEventListener(kind, event => { window.flotillaRun.ended[event.detail.prompt_id] = kind; });
}"""

_MISSING = "() => app.rootGraph.nodes.filter(n => !LiteGraph.registered_node_types[n.type]).map(n => n.type)"

_IMAGES_LOADED = """([id, count]) => {
    const images = app.rootGraph.getNodeById(id)?.imgs ?? [];
    return images.length === count && images.every(image => image.complete && image.naturalWidth > 0);
}"""

# Scales and moves the view so that all nodes fill the free part of the canvas, whatever panels are open.
_SHOW_ALL = """() => {
    const area = app.canvas.canvas.getBoundingClientRect(), side = 90, head = 170, foot = 30;
    const boxes = app.rootGraph.nodes.map(node => node.boundingRect);
    const left = Math.min(...boxes.map(b => b[0])), top = Math.min(...boxes.map(b => b[1]));
    const width = Math.max(...boxes.map(b => b[0] + b[2])) - left, height = Math.max(...boxes.map(b => b[1] + b[3])) - top;
    const scale = Math.min(1, (area.width - 2 * side) / width, (area.height - head - foot) / height);
    app.canvas.ds.scale = scale;
    app.canvas.ds.offset = [side / scale - left, head / scale - top];
    app.canvas.setDirty(true, true);
    return [area.left + side, area.top + head, width * scale, height * scale];
}"""

_DRAWN = (
    "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done))))"
)

_NO_MENUS = """
    [data-testid="side-toolbar"], [data-testid="topbar-workflow-tabs"], [data-testid="minimap-container"],
    [data-testid="subgraph-breadcrumb"], .p-toast, .actionbar, .graph-canvas-panel { visibility: hidden !important }
"""


class FrontEnd:
    """One tab with the front end of one server."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        page.set_default_timeout(ACTION_MS)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        page.goto(url, timeout=READY_MS)
        page.wait_for_function(_READY, timeout=READY_MS)

    def _on_console(self, message: ConsoleMessage) -> None:
        text = f"{message.text} {message.location.get('url', '')}"
        if message.type == "error" and not any(noise.search(text) for noise in HOST_NOISE):
            self.errors.append(text)

    # Workflows

    def open(self, workflow: Workflow) -> None:
        """Opens a workflow as dropping its file on the canvas does."""
        self.page.evaluate("async workflow => { await app.loadGraphData(workflow); }", workflow)

    def saved(self) -> dict[str, Any]:
        """The workflow as the front end would save it now."""
        return dict(json.loads(self.page.evaluate("() => JSON.stringify(app.rootGraph.serialize())")))

    def node(self, node_id: int) -> dict[str, Any]:
        """One node of `saved`."""
        (found,) = [node for node in self.saved()["nodes"] if node["id"] == node_id]
        return dict(found)

    def values(self, node_id: int) -> dict[str, Any]:
        """Widget name → value of a node on the canvas."""
        script = "id => Object.fromEntries((app.rootGraph.getNodeById(id).widgets ?? []).map(w => [w.name, w.value]))"
        return dict(self.page.evaluate(script, node_id))

    def missing(self) -> set[str]:
        """Node classes of the open workflow that the front end does not know."""
        return set(self.page.evaluate(_MISSING))

    def missing_card(self) -> str:
        """What the front end's own list of errors says of missing nodes; empty when it complains of none."""
        self.open_errors()
        cards = self.page.get_by_test_id("missing-node-card")
        return "\n".join(cards.all_inner_texts())

    def open_errors(self) -> None:
        """Opens the front end's list of errors, if it offers one."""
        details = self.page.get_by_role("button", name="View details")
        if details.count():
            details.click()
            self.page.get_by_test_id("properties-panel").wait_for()

    def exported(self) -> dict[str, Any]:
        """The open workflow in API format, as the front end sends it."""
        return dict(self.page.evaluate("async () => (await app.graphToPrompt()).output"))

    def set_value(self, node_id: int, widget: str, value: Any) -> None:
        """Changes a widget of a node on the canvas."""
        script = (
            "([id, name, value]) => { app.rootGraph.getNodeById(id).widgets.find(w => w.name === name).value = value; }"
        )
        self.page.evaluate(script, [node_id, widget, value])

    # Running

    def press_run(self) -> str:
        """Presses Run and returns the prompt id. Raises AssertionError where the server refuses the prompt."""
        self.page.evaluate(_RECORD)
        with self.page.expect_response(lambda response: response.url.endswith("/api/prompt")) as queued:
            self.page.get_by_test_id("queue-button").click()
        assert queued.value.ok, queued.value.text()
        return str(queued.value.json()["prompt_id"])

    def ending(self, prompt_id: str) -> str:
        """Waits for the end of a run; returns the name of the message that told of it."""
        self.page.wait_for_function("id => window.flotillaRun.ended[id]", arg=prompt_id, timeout=RUN_MS)
        return str(self.page.evaluate("id => window.flotillaRun.ended[id]", prompt_id))

    def error(self) -> dict[str, Any]:
        """What the last run failed with; empty if it did not fail."""
        return dict(self.page.evaluate("() => window.flotillaRun.error ?? {}"))

    def run(self) -> str:
        """Presses Run and waits for the good end; returns the prompt id. Raises AssertionError for another end."""
        prompt_id = self.press_run()
        assert self.ending(prompt_id) == "execution_success", self.error()
        return prompt_id

    def progress(self, node_id: int) -> list[tuple[float, float]]:
        """The progress messages of a node in the last run: (value, maximum)."""
        heard = self.page.evaluate("id => window.flotillaRun.progress[id] ?? []", str(node_id))
        return [(value, maximum) for value, maximum in heard]

    def await_bar(self, node_id: int) -> float:
        """Waits until a node shows a bar that is neither empty nor full; returns it, 0 to 1."""
        script = """id => {
            const shown = app.rootGraph.getNodeById(id).progress ?? 0;
            return shown > 0 && shown < 1 ? shown : null;
        }"""
        return float(self.page.wait_for_function(script, arg=node_id).json_value())

    def output(self, node_id: int) -> dict[str, Any]:
        """What the last run left on an output node."""
        return dict(self.page.evaluate("id => app.nodeOutputs[id] ?? {}", str(node_id)))

    def await_images(self, node_id: int, count: int) -> list[bytes]:
        """The pictures that a node shows, once all of them are loaded; file contents."""
        self.page.wait_for_function(_IMAGES_LOADED, arg=[node_id, count])
        sources = self.page.evaluate("id => app.rootGraph.getNodeById(id).imgs.map(image => image.src)", node_id)
        return [self.page.request.get(source).body() for source in sources]

    # Looks

    def setting(self, key: str, value: Any) -> None:
        """Changes one of the front end's settings."""
        self.page.evaluate(
            "async ([key, value]) => { await app.extensionManager.setting.set(key, value); }", [key, value]
        )

    def picture(self, path: Path) -> None:
        """A screenshot of everything, with the whole graph in view."""
        self._show_all()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)

    def picture_of_graph(self, path: Path) -> None:
        """A JPEG of the nodes alone, as the examples have beside them."""
        left, top, width, height = self._show_all()
        clip = {
            "x": left - MARGIN_PX,
            "y": top - MARGIN_PX,
            "width": width + 2 * MARGIN_PX,
            "height": height + 2 * MARGIN_PX,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path, type="jpeg", quality=JPEG_QUALITY, clip=clip, style=_NO_MENUS)

    def _show_all(self) -> tuple[float, float, float, float]:
        """Brings the whole graph into view; returns its left, top, width and height in pixels of the page."""
        left, top, width, height = self.page.evaluate(_SHOW_ALL)
        self.page.evaluate(_DRAWN)
        return left, top, width, height
