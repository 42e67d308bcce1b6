"""The network: backbone, feature pyramid, region proposal network, RoI head. Nothing here reads a file or knows a device."""
