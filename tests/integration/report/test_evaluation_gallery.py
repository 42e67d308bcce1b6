"""The images on the page of an evaluation: order, boxes, switches and filters."""
import numpy as np
import pytest

from src.report.error_analysis import DETECTION_KINDS, IGNORED
from tests.helpers import report_page
from tests.helpers.report_page import IMAGES, at, boxes_of, cells, counts_of, first_panel, images_with, score_by_keys, shown_ids


def test_the_most_expensive_images_come_first(page, case):
    assert page("document.querySelectorAll('#figures figure').length") == report_page.SHOWN
    for hundredths in (30, 60):
        score_by_keys(page, hundredths)
        costs = at(case, hundredths / 100).costs
        shown = [case.ids.index(image) for image in shown_ids(page)]
        assert len(set(shown)) == IMAGES and not page.find("#more").is_displayed()
        np.testing.assert_allclose(costs[shown], np.sort(costs)[::-1])
        captions = [text.rsplit(" ", 1)[1] for text in page.texts("#figures figcaption")]
        assert captions == [f"{costs[image]:.2f}" for image in shown]


@pytest.mark.parametrize("kind", ["error", *DETECTION_KINDS[:IGNORED], "missed"])
def test_filter_by_kind_of_error_and_class(page, case, kind):
    score_by_keys(page, 40)
    now = at(case, 0.4)
    page.choose("#kind", kind)
    assert set(shown_ids(page)) == images_with(case, now, kind)
    page.choose("#class", 3)
    assert set(shown_ids(page)) == images_with(case, now, kind, 3)
    page.choose("#kind", "")
    assert set(shown_ids(page)) == images_with(case, now, None, 3)
    count = len(images_with(case, now, None, 3))
    assert page.find("#gallery-count").text == f"{count} images of the {IMAGES} in this file"


def test_clicks_on_bars_and_on_class_names_filter_as_well(page, case):
    threshold = case.metrics["errors"]["score_threshold"]
    for bar, kind in (("#detection-kinds", "background"), ("#truth-outcomes", "missed")):
        page.click(f'{bar} button[data-key="{kind}"]')
        assert page.find("#kind").get_attribute("value") == kind
        # The chosen bar keeps the keyboard focus, although the bars are drawn again.
        assert page("[document.activeElement.dataset.key, document.activeElement.ariaPressed]") == [kind, "true"]
        assert set(shown_ids(page)) == images_with(case, at(case, threshold), kind)
    page.click('#truth-outcomes button[data-key="missed"]')
    assert len(shown_ids(page)) == IMAGES
    page.click("#class-table tbody tr:nth-child(2) td button")
    assert page.find("#class").get_attribute("value") == "1"
    assert set(shown_ids(page)) == images_with(case, at(case, threshold), None, 1)
    page.click("#class-table tbody tr:nth-child(2) td button")
    assert len(shown_ids(page)) == IMAGES


def test_a_click_on_a_cell_of_the_matrix_shows_its_images(page, case):
    now = at(case, case.metrics["errors"]["score_threshold"])
    counts, (rows, unmatched) = report_page.matrix(case, now), cells(case, now)
    background = len(case.names)
    off_diagonal = [(row, column) for row, column in np.argwhere(counts).tolist() if row != column]
    for row, column in off_diagonal[:3] + off_diagonal[-3:] + [(1, 1)]:
        page.click(f'#matrix button[data-key="{row},{column}"]')
        images = now.found.image[(rows == row) & (now.found.category == column) & (now.kinds != IGNORED)].tolist()
        if column == background:
            images += case.truth.image[[box for box in unmatched if case.truth.category[box] == row]].tolist()
        assert images and set(shown_ids(page)) == {case.ids[image] for image in images}
        names = [*case.names, "background"]
        assert page.find("#cell").text == f"✕ annotated {names[row]}, detected {names[column]}"
        # Boxes that the cell counts are bright, all other boxes are dimmed.
        first_panel(page)
        image = case.ids.index(int(page.find("#figures figure").get_attribute("data-id")))
        bright = page("[...document.querySelectorAll('#figures figure:first-child .box:not(.dim)')].map((node) => "
                      "+node.dataset.count)")
        assert sum(bright) == images.count(image)
    page.click("#cell")
    assert len(shown_ids(page)) == IMAGES and not page.find("#cell").is_displayed()
    page.click('#matrix button[data-key="1,1"]')
    page.click('#matrix button[data-key="1,1"]')
    assert len(shown_ids(page)) == IMAGES


def test_boxes_can_be_switched_on_and_off(page, case):
    now = at(case, case.metrics["errors"]["score_threshold"])
    image = case.ids.index(int(page.find("#figures figure").get_attribute("data-id")))
    truth, found = boxes_of(case, now, image)
    assert truth and found and first_panel(page) == {**truth, **found}
    page.click("#annotations")
    assert first_panel(page) == found
    page.click("#detections-0")
    assert first_panel(page) == {}
    page.click("#annotations")
    assert first_panel(page) == truth
    page.click("#detections-0")
    score_by_keys(page, 0)
    image = case.ids.index(int(page.find("#figures figure").get_attribute("data-id")))
    truth, found = boxes_of(case, at(case, 0), image)
    assert first_panel(page) == {**truth, **found}


def test_a_click_enlarges_an_image(page, case):
    from selenium.webdriver.common.keys import Keys
    ids = shown_ids(page)
    page.click("#figures figure:nth-child(2) button")
    assert page("document.getElementById('enlarged').open")
    now = at(case, case.metrics["errors"]["score_threshold"])
    for place, button in ((1, "#next"), (2, "#previous"), (1, "#previous"), (0, None)):
        figure = page.find("#enlarged-figure figure")
        image = case.ids.index(ids[place])
        assert figure.get_attribute("data-id") == str(ids[place])
        truth, found = boxes_of(case, now, image)
        assert counts_of(page, "#enlarged-figure") == {**truth, **found}
        detected, annotated = now.found.select(now.found.image == image), case.truth.select(case.truth.image == image)
        assert page.texts("#enlarged-figure .label") == [
            *(f"{case.names[category]} {score:.2f}" for category, score in zip(detected.category, detected.score)),
            *(case.names[label] + (" (crowd)" if crowd else "") for label, crowd in zip(annotated.category, annotated.crowd))]
        if button:
            page.click(button)
    assert not page.find("#previous").is_enabled()
    page.find("#enlarged").send_keys(Keys.ESCAPE)
    page.wait("!document.getElementById('enlarged').open")


def test_boxes_and_pictures_are_where_they_are_in_the_image(page, case):
    """Compared in image coordinates; the picture has the same area."""
    first_panel(page)
    number = int(page.find("#figures figure").get_attribute("data-id"))
    paths = page("[...document.querySelectorAll('#figures figure:first-child .found')].map((node) => node.getAttribute('d'))")
    now = at(case, case.metrics["errors"]["score_threshold"])
    boxes = sorted(tuple(np.round(box, 1)) for box in now.found.xywh[now.found.image == case.ids.index(number)])
    drawn = sorted(tuple(float(part) for part in text.replace("h", " ").replace("v", " ").split()[:4])
                   for text in "".join(paths).split("M")[1:])
    np.testing.assert_allclose(drawn, boxes, atol=1e-4)
    assert page("document.querySelector('#figures image').getBBox().width") == 128
