"""From the network's output to detections, result files and COCO numbers."""
