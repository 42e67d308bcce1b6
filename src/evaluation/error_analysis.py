"""What kinds of errors a detector makes, after TIDE (Bolya et al. 2020, arXiv:2008.08115).

Detections are matched with ground truth at an IoU of 0.5 as COCO does it: image by image and class by class, best score first,
each with the free box of highest IoU; a crowd may be taken again and again, and a detection that takes one is not counted.
Every other detection is

- correct, if it has taken a box; otherwise the first of these that holds, in the order of TIDE's own program:
- localisation: 0.1 <= IoU < 0.5 with its closest box of its own class;
- class: IoU >= 0.5 with a box of another class;
- duplicate: IoU >= 0.5 with a box of its own class, which a better detection has taken;
- background: IoU < 0.1 with every box;
- both, of place and class: what remains, so IoU from 0.1 to 0.5 with boxes of other classes alone.

Every box of the ground truth that is no crowd is

- found, if a detection has taken it; otherwise
- localisation, if it is the closest box of its class to a detection with that error; otherwise
- class, if it is the closest box of another class to a detection with that error; otherwise
- missed: no detection explains it.

Only detections from a score threshold on are looked at: the one that gives the highest F1 = 2 correct / (detections + boxes),
over all classes. As each detection is matched before those of lower scores, the threshold changes the kind of none above it.
"""
import numpy as np
from pycocotools import mask

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU
DETECTIONS = ("correct", "localisation", "class", "duplicate", "both", "background", "ignored")
TRUTH = ("found", "localisation", "class", "missed")
CORRECT, LOCALISATION, CLASS, DUPLICATE, BOTH, ON_BACKGROUND, IGNORED = range(len(DETECTIONS))
FOUND, BADLY_PLACED, OTHER_CLASS, MISSED = range(len(TRUTH))


def error_breakdown(truth, found, names):
    """Count the kinds of errors.

    Args:
        truth, found: src.evaluation.matching.Boxes; names: of the classes, by category.

    Returns:
        dict: `score_threshold` (float, None without detections), `detections` {kind: number} but for those that crowds
        excuse, `ground_truth` {kind: number}, and `per_class` {name: {"detections": ..., "ground_truth": ...}}, where a
        detection counts for the class that it names.
    """
    found = found.select(np.lexsort((-found.score, found.image)))
    truth = truth.select(np.argsort(truth.image, kind="stable"))
    kinds, partners = _judge(truth, found)
    threshold = _best_threshold(found.score, kinds, np.count_nonzero(~truth.crowd))
    kept = found.score >= threshold
    outcomes = _outcomes(kinds[kept], partners[kept], len(truth.crowd))
    detections = _count(kinds[kept], found.category[kept], len(names), len(DETECTIONS))[:, :IGNORED]
    boxes = _count(outcomes[~truth.crowd], truth.category[~truth.crowd], len(names), len(TRUTH))
    return {"score_threshold": float(threshold) if len(found.score) else None, **_named(detections.sum(0), boxes.sum(0)),
            "per_class": {name: _named(*rows) for name, *rows in zip(names, detections, boxes)}}


def _judge(truth, found):
    """Kinds of the detections (n,), and the row of the box that each is about (n,), -1 where it is about none."""
    kinds, partners = np.full(len(found.score), ON_BACKGROUND), np.full(len(found.score), -1)
    for image in np.unique(found.image):
        own = slice(*np.searchsorted(found.image, (image, image + 1)))
        first, last = np.searchsorted(truth.image, (image, image + 1))
        if last > first:
            crowd = truth.crowd[first:last]
            iou = mask.iou(found.xywh[own], truth.xywh[first:last], crowd)
            same = found.category[own, None] == truth.category[first:last]
            kinds[own], places = _judge_image(iou, same, crowd)
            partners[own] = np.where(places < 0, -1, first + places)
    return kinds, partners


def _judge_image(iou, same, crowd):
    """Kinds (D,) and places of the boxes that they are about (D,), -1 for none.

    iou: (D, G), best score first; same: (D, G) bool, whether the classes are the same; crowd: (G,) bool.
    """
    taken = _match(np.where(same, iou, -1.0), crowd)
    own, other = np.where(same & ~crowd, iou, -1.0), np.where(same | crowd, -1.0, iou)
    of_own, of_other = own.max(axis=1), other.max(axis=1)
    kinds = np.select(
        [(taken >= 0) & crowd[taken], taken >= 0, (of_own >= BACKGROUND) & (of_own < FOREGROUND), of_other >= FOREGROUND,
         of_own >= FOREGROUND, np.maximum(of_own, of_other) < BACKGROUND],
        [IGNORED, CORRECT, LOCALISATION, CLASS, DUPLICATE, ON_BACKGROUND], BOTH)
    places = np.select([kinds == CORRECT, kinds == LOCALISATION, kinds == CLASS], [taken, own.argmax(1), other.argmax(1)], -1)
    return kinds, places


def _match(iou, crowd):
    """The place of the box that each detection takes (D,), -1 for none; iou: (D, G), best score first, -1 between classes."""
    taken, free = np.full(len(iou), -1), np.ones(len(crowd), bool)
    for d in np.flatnonzero(iou.max(axis=1) >= FOREGROUND):
        able = free & (iou[d] >= FOREGROUND)
        if (able & ~crowd).any():
            able &= ~crowd
        if able.any():
            # The last one of equal IoU, as in COCO's own tool.
            taken[d] = len(able) - 1 - np.where(able, iou[d], -1.0)[::-1].argmax()
            free[taken[d]] = crowd[taken[d]]
    return taken


def _best_threshold(score, kinds, boxes):
    """The score from which on F1 is highest; infinity without detections."""
    order = np.argsort(-score, kind="stable")
    score, kinds = score[order], kinds[order]
    last_of_score = np.append(score[1:] != score[:-1], True)[:len(score)]
    correct, counted = np.cumsum(kinds == CORRECT), np.cumsum(kinds != IGNORED)
    f1 = np.where(last_of_score, 2 * correct / np.maximum(counted + boxes, 1), -1.0)
    # Of equal ones the lowest score: where nothing is correct, all errors are counted.
    return score[len(f1) - 1 - f1[::-1].argmax()] if len(score) else np.inf


def _outcomes(kinds, partners, count):
    """What became of each of `count` boxes: (count,) of FOUND, ..."""
    outcomes = np.full(count, MISSED)
    # The strongest explanation last, as it overwrites the others.
    for kind, outcome in ((CLASS, OTHER_CLASS), (LOCALISATION, BADLY_PLACED), (CORRECT, FOUND)):
        outcomes[partners[kinds == kind]] = outcome
    return outcomes


def _count(kinds, category, categories, number):
    """(categories, number): how many of each kind a category has."""
    return np.bincount(category * number + kinds, minlength=categories * number).reshape(categories, number)


def _named(detections, boxes):
    return {"detections": dict(zip(DETECTIONS, detections.tolist())), "ground_truth": dict(zip(TRUTH, boxes.tolist()))}
