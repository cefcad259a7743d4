"Properties of frames and overlaps on boxes that no lesson would think of"

import torch, torchvision
from hypothesis import given, settings, strategies as st
from ssd_tutorial.boxes import (
    box_area,
    clip_boxes,
    cxcywh_to_xyxy,
    intersection,
    iou,
    paired_iou,
    to_fractions,
    to_pixels,
    xyxy_to_cxcywh,
)

number = st.floats(-2, 3, width=32)
any_boxes = st.lists(st.tuples(number, number, number, number), max_size=6).map(
    lambda rows: torch.tensor(rows).reshape(-1, 4)
)
sound_boxes = any_boxes.map(
    lambda b: torch.cat([torch.minimum(b[:, :2], b[:, 2:]), torch.maximum(b[:, :2], b[:, 2:])], 1)
)
few = settings(max_examples=150, deadline=None)


@few
@given(any_boxes, any_boxes)
def test_overlap_of_any_boxes_is_finite_symmetric_and_at_most_one(a, b):
    table = iou(a, b)
    assert table.shape == (len(a), len(b))
    assert table.isfinite().all()
    assert (table >= 0).all()
    assert (table <= 1 + 1e-5).all()
    assert torch.equal(table, iou(b, a).T)
    assert (intersection(a, b) <= torch.minimum(box_area(a)[:, None], box_area(b)) + 1e-5).all()


@few
@given(sound_boxes, sound_boxes)
def test_equal_to_torchvision_on_boxes_with_area(a, b):
    a, b = (x[box_area(x) > 1e-4] for x in (a, b))
    torch.testing.assert_close(iou(a, b), torchvision.ops.box_iou(a, b))
    torch.testing.assert_close(box_area(a), torchvision.ops.box_area(a))
    n = min(len(a), len(b))
    torch.testing.assert_close(paired_iou(a[:n], b[:n]), iou(a[:n], b[:n]).diagonal())


@few
@given(any_boxes)
def test_frames_come_back(boxes):
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        to_fractions(to_pixels(boxes, (300, 451)), (300, 451)), boxes, atol=1e-5, rtol=1e-5
    )
    clipped = clip_boxes(boxes)
    assert ((clipped >= 0) & (clipped <= 1)).all()
    assert torch.equal(clip_boxes(clipped), clipped)


def test_each_image_of_a_batch_has_its_own_size():
    sizes_hw = torch.tensor([[10, 20], [30, 40], [50, 60]])
    # as many boxes as images: the case where a wrong broadcast stays silent
    boxes = torch.rand(3, 3, 4, generator=torch.Generator().manual_seed(0))
    together = to_pixels(boxes, sizes_hw)
    for i in range(3):
        torch.testing.assert_close(together[i], to_pixels(boxes[i], sizes_hw[i].tolist()))
