"Anchors: their order, their numbers, what coders and coverage promise"

import json
import pytest
import torch
from hypothesis import given, settings, strategies as st
from ssd_tutorial.anchors import (
    GRID16,
    MULTI,
    SHAPES_45,
    AnchorSpec,
    GridSpec,
    LogCoder,
    TanhCoder,
    coder_from_dict,
    coder_to_dict,
    level_anchors,
    make_anchors,
    shapes_of,
    spec_from_dict,
    spec_to_dict,
    tiled_shapes,
)
from ssd_tutorial.boxes import paired_iou, xyxy_to_cxcywh
from ssd_tutorial.coverage import coverage, coverage_report, propose_shapes, propose_spec
from ssd_tutorial.records import generated_data

fractions = st.floats(0, 1, width=32)


@st.composite
def boxes(draw, least=0.02):
    "A box inside the image with sides of at least `least`"
    w, h = (least + (1 - least) * draw(fractions) for _ in range(2))
    x, y = draw(fractions) * (1 - w), draw(fractions) * (1 - h)
    return torch.tensor([[x, y, x + w, y + h]])


@st.composite
def specs(draw):
    shapes = st.lists(
        st.sampled_from(SHAPES_45 + shapes_of((0.5, 1.5), (0.5, 1.0, 2.0))), min_size=1, max_size=4
    ).map(tuple)
    levels = draw(st.lists(st.builds(GridSpec, st.integers(1, 8), shapes), min_size=1, max_size=3))
    return AnchorSpec(tuple(levels), draw(st.booleans()))


@settings(deadline=None, max_examples=60)
@given(specs(), st.integers(1, 3))
def test_order_is_how_a_feature_map_is_read(spec, k):
    """A map filled with (level, row, column, shape), flattened as every head flattens,
    names the anchor of the same number."""
    flat = []
    for n, level in enumerate(spec.levels):
        S, c = len(level.shapes), level.cells
        tags = torch.stack(
            torch.meshgrid(
                torch.tensor([n]), torch.arange(S), torch.arange(c), torch.arange(c), indexing='ij'
            )
        )[:, 0]  # (4,S,c,c): level, shape, row, column
        for tag in tags:
            # channels as a head gives them: shape by shape, k numbers each
            fmap = tag.repeat_interleave(k, 0)[None]
            read = fmap.permute(0, 2, 3, 1).reshape(1, -1, k)
            assert (read == read[..., :1]).all()
            flat.append(read[0, :, 0])
    tags = torch.cat([torch.stack(flat[i : i + 4]) for i in range(0, len(flat), 4)], 1)
    anchors = make_anchors(spec)
    assert tags.shape[1] == len(anchors) == spec.n_anchors
    for (level, shape, row, col), anchor in zip(tags.T.tolist(), anchors):
        g = spec.levels[level]
        x1, y1, x2, y2 = g.shapes[shape]
        want = torch.tensor([col + x1, row + y1, col + x2, row + y2]) / g.cells
        assert torch.allclose(anchor, want.clamp(0, 1) if spec.clip else want, atol=1e-5)


def test_counts():
    assert GRID16.n_anchors == len(make_anchors(GRID16)) == 16
    assert MULTI.n_anchors == len(make_anchors(MULTI)) == 3150
    assert [len(tiled_shapes(*s)) for s in ((1, 1), (1, 0.5), (0.5, 1))] == [9, 18, 18]


def test_geometry_of_the_45():
    "Corners as DESIGN gives them, in order: rows outside, columns inside"
    xs, ys = torch.linspace(-1 / 3, 1 / 3, 3), torch.linspace(-1 / 6, 2 / 3, 6)

    def lattice(xs, ys, w, h):
        return [(x, y, x + w, y + h) for y in ys for x in xs]

    want = torch.tensor(lattice(xs, xs, 1, 1) + lattice(xs, ys, 1, 0.5) + lattice(ys, xs, 0.5, 1))
    assert torch.allclose(torch.tensor(SHAPES_45), want, atol=1e-6)
    anchors = make_anchors(MULTI)
    assert anchors.min() == 0
    assert anchors.max() == 1
    assert (anchors[:, 2:] > anchors[:, :2]).all()


def test_the_fine_grid_tiles_the_image():
    cells = level_anchors(GridSpec(7))
    assert torch.allclose((cells[:, 2:] - cells[:, :2]).prod(1).sum(), torch.tensor(1.0))
    assert torch.isclose(cells.max(), torch.tensor(1.0))


@pytest.mark.parametrize(
    'make',
    [
        lambda: GridSpec(0),
        lambda: GridSpec(2, ()),
        lambda: GridSpec(2, ((0, 0, 0, 1),)),
        lambda: GridSpec(2, ((0, 1, 1, 0),)),
        lambda: GridSpec(2, ((0, 1, 1),)),
    ],
)
def test_an_impossible_grid_says_so(make):
    with pytest.raises(ValueError):
        make()


@settings(deadline=None)
@given(boxes(), boxes())
def test_log_round_trip(box, anchor):
    coder = LogCoder()
    assert torch.allclose(coder.decode(coder.encode(box, anchor), anchor), box, atol=1e-4)
    assert torch.allclose(
        coder.residual(coder.encode(box, anchor), box, anchor), torch.zeros(1, 4), atol=1e-3
    )


@settings(deadline=None)
@given(
    boxes(),
    st.lists(st.floats(-0.98, 0.98), min_size=4, max_size=4),
    st.sampled_from([0.25, 0.5, 0.8]),
)
def test_tanh_round_trip_within_reach(anchor, t, reach):
    coder = TanhCoder(reach)
    deltas = torch.tensor([t]).atanh()
    box = coder.decode(deltas, anchor)
    assert torch.allclose(coder.decode(coder.encode(box, anchor), anchor), box, atol=1e-4)
    assert torch.allclose(
        coder.residual(coder.encode(box, anchor), box, anchor), torch.zeros(1, 4), atol=1e-2
    )


@settings(deadline=None)
@given(
    boxes(), st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), st.sampled_from([0.25, 0.5])
)
def test_tanh_never_leaves_its_reach(anchor, deltas, reach):
    box, a = (
        xyxy_to_cxcywh(b)[0]
        for b in (TanhCoder(reach).decode(torch.tensor([deltas]), anchor), anchor)
    )
    assert ((box[:2] - a[:2]).abs() <= reach * a[2:] + 1e-5).all()
    assert ((box[2:] - a[2:]).abs() <= reach * a[2:] + 1e-5).all()


@settings(deadline=None)
@given(boxes(), boxes())
def test_out_of_reach_gets_the_nearest_box(box, anchor):
    coder = TanhCoder()
    drawn, want, a = (
        xyxy_to_cxcywh(b)[0] for b in (coder.decode(coder.encode(box, anchor), anchor), box, anchor)
    )
    nearest = torch.cat(
        [
            want[:2].clamp(a[:2] - a[2:] / 2, a[:2] + a[2:] / 2),
            want[2:].clamp(a[2:] * 0.5, a[2:] * 1.5),
        ]
    )
    assert torch.allclose(drawn, nearest, atol=1e-3)


@pytest.mark.parametrize('coder', [TanhCoder(), LogCoder()])
def test_coders_stay_finite_and_take_batches(coder):
    anchors = make_anchors(GRID16)
    deltas = torch.randn(3, 16, 4) * 1e4
    assert coder.decode(deltas, anchors).isfinite().all()
    empty = torch.zeros(3, 16, 4)
    assert coder.encode(empty, anchors).isfinite().all()  # padding has no size
    assert coder.decode(deltas[:0], anchors).shape == (0, 16, 4)
    d = torch.randn(3, 16, 4, requires_grad=True)
    coder.residual(d, anchors.expand(3, 16, 4), anchors.expand(3, 16, 4)).abs().sum().backward()
    assert d.grad.isfinite().all()
    assert (d.grad != 0).any()


@settings(deadline=None)
@given(st.lists(boxes(), min_size=1, max_size=6), st.lists(boxes(), min_size=2, max_size=6))
def test_coverage_is_monotone(objects, anchors):
    "More anchors never reach less, and a set reaches all of itself"
    objects, anchors = torch.cat(objects), torch.cat(anchors)
    less, more = coverage(objects, anchors[:-1]), coverage(objects, anchors)
    assert (more >= less).all()
    assert (more <= 1 + 1e-6).all()
    assert torch.allclose(coverage(anchors, anchors), torch.ones(len(anchors)), atol=1e-4)
    assert torch.equal(coverage(objects, anchors, chunk=1), more)


def test_coverage_counts_pairs_right():
    a, b = (
        torch.rand(50, 2, 2).sort(1).values.flatten(1),
        torch.rand(70, 2, 2).sort(1).values.flatten(1),
    )
    want = torch.stack([paired_iou(x.expand(70, 4), b).max() for x in a])
    assert torch.allclose(coverage(a, b), want)
    assert len(coverage(torch.zeros(0, 4), b)) == 0


@pytest.fixture(scope='module')
def data():
    return {p: generated_data(p, n_train=60, n_valid=1) for p in ('grid', 'multiscale')}


def test_report_on_presets(data):
    share = lambda preset, spec, t=0.5: coverage_report(
        data[preset].train, spec, data[preset].vocab, t
    )['all'][0]
    assert share('grid', GRID16) > 0.9
    assert share('multiscale', GRID16) < 0.3
    assert share('multiscale', MULTI) > 0.95
    shares = [share('multiscale', MULTI, t) for t in (0.3, 0.5, 0.7, 0.9)]
    assert shares == sorted(shares, reverse=True)


def test_report_adds_up_and_leaves_crowds_out(data):
    records, vocab = data['multiscale'].train, data['multiscale'].vocab
    report = coverage_report(records, MULTI, vocab)
    n = report['all'][1]
    assert (
        n
        == sum(len(r.labels) for r in records)
        == sum(c for _, c in report['by_class'].values())
        == sum(c for _, c in report['by_size'].values())
    )
    from dataclasses import replace

    crowds = [replace(r, crowd=r.crowd | True) for r in records[:5]]
    assert coverage_report(crowds + records[5:], MULTI, vocab)['all'][1] == n - sum(
        len(r.labels) for r in records[:5]
    )
    assert coverage_report(records, make_anchors(MULTI), vocab) == report


@settings(deadline=None, max_examples=40)
@given(specs())
def test_spec_round_trip(spec):
    assert spec_from_dict(json.loads(json.dumps(spec_to_dict(spec)))) == spec


@pytest.mark.parametrize('coder', [TanhCoder(), TanhCoder(0.3), LogCoder(), LogCoder((0.2, 0.4))])
def test_coder_round_trip(coder):
    assert coder_from_dict(json.loads(json.dumps(coder_to_dict(coder)))) == coder


def test_unknown_coder():
    with pytest.raises(ValueError, match='tanh, log'):
        coder_from_dict(dict(kind='linear'))


def test_proposals_fit_better_than_chance_and_repeat():
    # tall things
    wh = 0.05 + torch.rand(400, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [0.2, 0.9]
    )
    xy = torch.rand(400, 2, generator=torch.Generator().manual_seed(1)) * (1 - wh)
    b = torch.cat([xy, xy + wh], 1)
    assert torch.equal(propose_shapes(wh, 5), propose_shapes(wh, 5))
    share = lambda spec: (coverage(b, make_anchors(spec)) >= 0.5).float().mean()
    assert share(propose_spec(wh, 9)) > share(MULTI)
    with pytest.raises(ValueError, match='fewer'):
        propose_shapes(wh[:2], 3)


def test_mirror_is_not_the_order():
    "The mistake of many tutorials has the same boxes, in another order"
    cells = level_anchors(GridSpec(4))
    mirrored = cells.view(4, 4, 4).transpose(0, 1).reshape(-1, 4)
    assert int((cells != mirrored).any(1).sum()) == 4 * 4 - 4
