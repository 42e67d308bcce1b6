"""Labels in YOLO format, found and read for yolo_to_coco.py."""
