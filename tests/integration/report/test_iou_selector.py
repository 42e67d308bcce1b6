"""The IoU selector on the page of an evaluation, with a worked example; its page replaces the shared one."""
from src.config import Config
from src.evaluation.coco import score
from src.report.evaluation import match_boxes, write_evaluation_report
from tests.helpers.report_page import first_panel, rows_of, score_by_keys
from tests.helpers.reports import drawn_dataset, result


def test_the_iou_of_a_worked_example(browser, tmp_path):
    """Boxes of 40 x 40 pixels; moved by d pixels, their IoU is (40 - d) / (40 + d): 0.905 for 2, 0.818 for 4, 0.667 for 8."""
    from tests.helpers.browser import Page
    dataset = drawn_dataset(tmp_path, 3)
    image, first, second = dataset.records[0].image_id, *dataset.category_ids[:2]
    dataset.coco_json["annotations"] = [
        {"id": k + 1, "image_id": image, "category_id": first, "bbox": [x, y, 40, 40], "area": 1600, "iscrowd": 0}
        for k, (x, y) in enumerate(((0, 0), (60, 0), (0, 50)))]
    found = [result(image, category, [x, y, 40, 40], value) for category, x, y, value in (
        (first, 2, 0, 0.9), (first, 4, 0, 0.8), (first, 68, 0, 0.7), (second, 8, 50, 0.6))]
    dataset.records[1:] = []
    evaluation = score(dataset.coco_json, found, [image], dataset.names, dataset.category_ids)
    write_evaluation_report(str(tmp_path), evaluation, match_boxes(evaluation), dataset, Config())
    page = Page(browser, tmp_path / "report.html")
    score_by_keys(page, 0)

    def numbers(name):
        return {text.split()[0]: text.split()[1] for text in page(
            "[...document.querySelectorAll(a[0])].map((node) => node.dataset.key + ' ' + node.textContent)",
            f"#{name} .bar") if text.split()[1] != "0"}
    at_half = {"correct": "2", "duplicate": "1", "class": "1"}, {"found": "2", "class": "1"}, ["3", "0.667", "0.667", "0.667"]
    for iou, detections, boxes, row in (
            (0.5, *at_half),
            (0.75, {"correct": "1", "duplicate": "1", "localisation": "1", "both": "1"},
             {"found": "1", "localisation": "1", "missed": "1"}, ["3", "0.333", "0.333", "0.333"]),
            (0.95, {"localisation": "3", "both": "1"}, {"localisation": "2", "missed": "1"}, ["3", "0.000", "0.000", "0.000"]),
            (0.5, *at_half)):
        page.choose("#iou", iou)
        assert numbers("detection-kinds") == detections and numbers("truth-outcomes") == boxes
        assert rows_of(page, "#class-table tbody tr")[0][5:9] == row
        shown = {kind: str(count) for (truth, kind), count in first_panel(page).items() if not truth}
        assert shown == detections
