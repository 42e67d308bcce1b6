"""Pascal VOC annotations, read for voc_to_coco.py."""
