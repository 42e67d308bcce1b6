"""The network: backbone, feature pyramid, region proposal network and RoI head. No module reads files or depends on a device."""
