"""The numbers on the page of an evaluation, and the controls that change them."""
import numpy as np
import pytest

from src.report.error_analysis import CORRECT, DETECTION_KINDS, FOUND, IGNORED, TRUTH_OUTCOMES
from tests.helpers.report_page import at, best_f1, matrix, rows_of, score_by_keys
from tests.helpers.reports import SCRIPT

ROWS = "#class-table tbody tr"


def test_numbers_are_those_of_metrics_json(page, case):
    shown = page("[...document.querySelectorAll('#numbers dd')].map((node) => "
                 "[node.dataset.key, +node.dataset.value, node.textContent])")
    assert len(shown) == 12
    for key, value, text in shown:
        assert value == case.metrics[key] and text == ("–" if value < 0 else f"{value:.3f}")
    aps = {row[0]: row[2] for row in rows_of(page, ROWS)}
    assert aps == {name: f"{ap:.3f}" for name, ap in case.metrics["per_class"].items()}
    errors = case.metrics["errors"]
    assert page("detector.threshold") == errors["score_threshold"]
    assert page.texts("#detection-kinds .bar span") == shares(errors["detections"])
    assert page.texts("#truth-outcomes .bar span") == shares(errors["ground_truth"])


def shares(counts):
    total = sum(counts.values())
    return [f"{count} ({100 * count / total:.1f}%)" for count in counts.values()]


@pytest.mark.parametrize(("hundredths", "iou"), [(0, 0.5), (40, 0.5), (75, 0.5), (100, 0.5), (40, 0.75), (0, 0.9)])
def test_the_slider_and_the_iou_change_every_number(page, case, hundredths, iou):
    score_by_keys(page, hundredths)
    page.choose("#iou", iou)
    now = at(case, hundredths / 100, iou)
    assert page.find("#score-value-0").text == f"{hundredths / 100:.3f}"
    kinds = np.bincount(now.kinds, minlength=len(DETECTION_KINDS))[:IGNORED]
    outcomes = np.bincount(now.outcomes[now.counted], minlength=len(TRUTH_OUTCOMES))
    assert [text.split()[0] for text in page.texts("#detection-kinds .bar span")] == [str(count) for count in kinds]
    assert [text.split()[0] for text in page.texts("#truth-outcomes .bar span")] == [str(count) for count in outcomes]
    shown = page("[...document.querySelectorAll('#matrix tbody tr')].map((row) => "
                 "[...row.cells].slice(1).map((cell) => +cell.textContent))")
    assert shown == matrix(case, now).tolist()
    for k, row in enumerate(rows_of(page, ROWS)):
        own = now.kinds[(now.found.category == k) & (now.kinds != IGNORED)]
        boxes = now.outcomes[(case.truth.category == k) & now.counted]
        correct, found = (own == CORRECT).sum(), (boxes == FOUND).sum()
        assert row[1] == str(len(boxes)) and row[5] == str(len(own))
        assert row[6:9] == [f"{part / whole:.3f}" if whole else "–" for part, whole in (
            (correct, len(own)), (found, len(boxes)), (2 * correct, len(own) + len(boxes)))]


def test_boxes_on_the_canvas_and_anchors(page, case):
    """The canvas of 192 x 192 pixels enlarges the images, 96 x 128 pixels, by 1.5."""
    sides = 1.5 * np.sqrt(case.truth.xywh[~case.truth.crowd, 2] * case.truth.xywh[~case.truth.crowd, 3])
    edges = [0, 16, 45.25, 90.51, 181.02, 362.04, 1024, np.inf]
    counts = [int(((sides >= low) & (sides < high)).sum()) for low, high in zip(edges, edges[1:])]
    assert [int(text.split(" of ")[-1].strip(")")) if "of" in text else 0 for text in page.texts("#anchors .bar span")] == counts
    assert sum(map(bool, counts)) >= 3 and page.texts("#anchors .name") == [
        "below 16", "16 to 45.3: anchor 32, stride 4", "45.3 to 90.5: anchor 64, stride 8", "90.5 to 181: anchor 128, stride 16",
        "181 to 362: anchor 256, stride 32", "362 to 1024: anchor 512, stride 64", "1024 and more"]


@pytest.mark.parametrize("k", [-1, 1])
def test_recall_by_size_and_shape(page, case, k):
    score_by_keys(page, 40)
    page.choose("#class", k)
    now = at(case, 0.4)
    own = now.counted & ((case.truth.category == k) | (k < 0))
    width, height = case.truth.xywh[:, 2:].T
    for target, values, borders in (("sides", np.sqrt(case.truth.area), [0, 16, 32, 64, 96, 128, 256, 512, np.inf]),
                                    ("ratios", width / height, [0, 0.25, 0.5, 0.8, 1.25, 2, 4, np.inf])):
        expected = []
        for low, high in zip(borders, borders[1:]):
            boxes = now.outcomes[own & (values >= low) & (values < high)]
            found = (boxes == FOUND).sum()
            expected.append(f"{found / len(boxes):.3f} ({found} of {len(boxes)})" if len(boxes) else "no boxes")
        assert page.texts(f"#{target} .bar span") == expected


@pytest.mark.parametrize("column", range(11))
def test_a_click_on_a_heading_sorts_and_another_turns_the_order(page, column):
    def values():
        cells = [row[column] for row in rows_of(page, ROWS)]
        return [cell.lower() for cell in cells] if column == 0 else [float(cell.replace("–", "-1")) for cell in cells]

    for number, order in enumerate(("ascending", "descending") if column == 0 else ("descending", "ascending")):
        page.click(f'#class-table button[data-key="{column}"]')
        assert page.find(f"#class-table th:nth-child({column + 1})").get_attribute("aria-sort") == order, number
        if column:  # not for names: browsers sort them by language, which puts signs before letters like ASCII
            assert values() == sorted(values(), reverse=order == "descending")
        else:
            assert values()[0 if order == "ascending" else -1] == SCRIPT
    assert page("document.querySelectorAll('#class-table th[aria-sort=none]').length") == 10
    page("(classTable.direction = 0, showClasses(classTable))")


def test_curves_and_best_thresholds_of_a_chosen_class(page, case):
    for k in (0, 2, -1):
        f1, highest, threshold = best_f1(case, k if k >= 0 else None)
        page.choose("#class", k)
        page.click("#best")
        assert page("detector.threshold") == np.float32(threshold)
        [legend] = page.texts("#f1 .chart-legend span")
        assert legend == f"best {highest:.3f} from a score of {threshold:.3f}"
        option, value = page.find("#conf-0").text.split()
        assert option == "--conf_threshold" and threshold - 0.001 <= float(value) < threshold
        # The chart is 320 - 12 - 42 pixels high for values from 0 to 1, and 560 - 52 - 14 pixels wide.
        points = np.array([[float(number) for number in point.split()] for point in page(
            "document.querySelector('#f1 path').getAttribute('d')").strip("M").split("L")])
        np.testing.assert_allclose((278 - points[:, 1]) / 266, f1, atol=1e-3)
        np.testing.assert_allclose((points[:, 0] - 52) / 494, np.arange(101) / 100, atol=1e-3)
        ap50 = case.metrics["AP50"] if k < 0 else page("detector.classes[a[0]].ap50", k)
        points = page("document.querySelector('#precision-recall path').getAttribute('d')").strip("M").split("L")
        assert len(points) == 101
        assert np.mean([(278 - float(point.split()[1])) / 266 for point in points]) == pytest.approx(ap50, abs=2e-3)


def test_names_and_appearance(page):
    """A class called <script> is shown and not run, each control has a name, and dark and narrow windows are supported."""
    assert SCRIPT in page.texts("#class option") and SCRIPT in [row[0] for row in rows_of(page, ROWS)]
    assert page("document.scripts.length") == 7
    page.choose("#class", page.texts("#class option").index(SCRIPT) - 1)
    assert SCRIPT in page.texts("#f1 h3")[0]
    unnamed = page("[...document.querySelectorAll('button, input, select')].filter((node) => !node.hidden && "
                   "!(node.textContent.trim() || node.ariaLabel || node.labels?.[0]?.textContent.trim())).length")
    assert unnamed == 0 and page("document.title") == "Evaluation of some.ckpt" and page("document.characterSet") == "UTF-8"
    colours = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    light = page(colours)
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    assert page(colours) != light
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 1,
                                                                        "mobile": False})
    assert page("document.documentElement.scrollWidth") <= 400
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
