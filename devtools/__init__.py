"""Development tools of Flotilla: environment, hosts, fleets, demo and checks. Not part of the pack."""
