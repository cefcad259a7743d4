"""Properties of augmentation that no single example can show; see lesson 04"""
import pickle
import numpy as np, pytest, torch
from functools import lru_cache
from hypothesis import given, settings, strategies as st
from ssd_tutorial.augment import AUGMENTERS, DetectionDataset, DetectionLoader, augment, clip_visible, collate, make_augmenter, make_dls, make_target, move, unpad
from ssd_tutorial.readers import DetectionData, generated_data, make_record

SIDE = 128  # pixels
AXIS_ALIGNED = [n for n in AUGMENTERS if n!='rotate']
quick = settings(max_examples=30, deadline=None, database=None)
seeds = st.integers(0, 2**31-1)

@st.composite
def boxes(draw, least=48):
    "One box in whole pixels; large enough that coarse dropout cannot hide a whole side of it"
    w,h = draw(st.integers(least, 100)), draw(st.integers(least, 100))
    x,y = draw(st.integers(0, SIDE-w)), draw(st.integers(0, SIDE-h))
    return np.array([[x,y,x+w,y+h]], np.float32)

@lru_cache
def chain(strength, *names): return make_augmenter(strength, names or AUGMENTERS)

def painted(box):
    "A red rectangle on grey: no augmenter makes grey red, or the fill"
    img = np.full((SIDE,SIDE,3), 90, np.uint8); x1,y1,x2,y2 = box[0].astype(int)
    img[y1:y2,x1:x2] = (255,0,0)
    return img

def red_extent(img):
    "Corners of what has colour, pixels; None where nothing has. Half of the strongest colour: hue and light may change"
    chroma = np.ptp(img.astype(int), axis=-1)
    ys,xs = np.nonzero(chroma>max(chroma.max()/2, 15))
    return np.array([xs.min(), ys.min(), xs.max()+1, ys.max()+1]) if len(xs) else None


@quick
@given(boxes(1), seeds)
def test_flip_twice_is_identity(box, seed):
    flip, img = chain(1., 'flip'), painted(box)
    once = move(flip, img, box, seed); twice = move(flip, *once, seed)
    np.testing.assert_array_equal(twice[0], img); np.testing.assert_allclose(twice[1], box)
    np.testing.assert_array_equal(red_extent(once[0]), once[1][0])


@pytest.mark.parametrize('strength', [.3, 1., 2.])
@pytest.mark.parametrize('name', AUGMENTERS)
def test_painted_rectangle_stays_in_its_box(name, strength):
    @settings(quick, max_examples=20)
    @given(boxes(), seeds)
    def check(box, seed):
        out, moved = move(chain(strength, name), painted(box), box, seed)
        cut, keep = clip_visible(moved, out.shape[:2]); red = red_extent(out)
        if not keep[0]: return  # given up: less than the visible share is left of it
        assert red is not None
        assert (red[:2]>=cut[0,:2]-1).all() and (red[2:]<=cut[0,2:]+1).all(), (red, cut)  # 1 px: interpolation
        if name in AXIS_ALIGNED: np.testing.assert_allclose(red, cut[0], atol=2)
    check()


@settings(quick, max_examples=40)
@given(boxes(), seeds, st.sampled_from([.5,1.,2.]))
def test_painted_rectangle_stays_in_its_box_under_the_whole_chain(box, seed, strength):
    out, moved = move(chain(strength), painted(box), box, seed)
    cut, keep = clip_visible(moved, out.shape[:2]); red = red_extent(out)
    if keep[0]: assert (red[:2]>=cut[0,:2]-2).all() and (red[2:]<=cut[0,2:]+2).all(), (red, cut)


@settings(quick, max_examples=40)
@given(st.lists(boxes(3), min_size=0, max_size=5), seeds, st.sampled_from([0.,1.,2.]))
def test_no_box_is_degenerate_or_outside(many, seed, strength):
    b = np.concatenate(many) if many else np.zeros((0,4), np.float32)
    img = np.zeros((SIDE,SIDE,3), np.uint8)
    out, cut, keep = augment(chain(strength), img, b, np.random.default_rng(seed))
    assert out.shape==img.shape and out.dtype==np.uint8 and cut.shape==b.shape and keep.shape==(len(b),)
    assert keep.any() or not len(b)                    # never all lost
    kept = cut[keep]
    assert (kept[:,2:]-kept[:,:2]>=2).all() and (kept>=0).all() and (kept<=SIDE).all()
    record = make_record(img, 0, img.shape[:2], [dict(box_px=x, label=1) for x in b])
    t = make_target(record, cut/SIDE, keep)['boxes_xyxy']
    assert (t[:,2:]>t[:,:2]).all() and (t>=0).all() and (t<=1).all()


COLOURS = [(255,0,0), (0,255,0), (0,0,255)]  # label 1, 2, 3

@settings(quick, max_examples=40)
@given(st.permutations([0,1,2]), seeds)
def test_labels_stay_with_their_boxes(order, seed):
    "Three objects in three colours: whatever leaves the image, a label's box holds its colour"
    img = np.full((SIDE,SIDE,3), 90, np.uint8); objects = []
    for place,c in enumerate(order):
        x = 5+place*41; img[40:90, x:x+35] = COLOURS[c]
        objects.append(dict(box_px=[x,40,x+35,90], label=c+1, difficult=c==2, crowd=c==0))
    ds = DetectionDataset([make_record(img, 0, (SIDE,SIDE), objects)], SIDE, 2., names=('flip','zoom','stretch','rotate'), seed=seed)
    x,t = ds[0]
    for box,label in zip((t['boxes_xyxy']*SIDE).round().int().tolist(), t['labels'].tolist()):
        x1,y1,x2,y2 = box; inside = x[:,y1:y2,x1:x2].mean((1,2))  # grey and fill add alike to all three channels
        assert inside.argmax()+1==label
    assert (t['difficult']==(t['labels']==3)).all() and (t['crowd']==(t['labels']==1)).all()


@pytest.fixture(scope='module')
def records(): return generated_data('multiscale', n_train=10, n_valid=4, size=96).train

def run(records, workers, seed=0, epochs=2):
    "What two epochs show of each image: epoch → image id → pixels, boxes"
    ds = DetectionDataset(records, 96, 1., seed=seed); loader = DetectionLoader(ds, seed, bs=4, shuffle=True, num_workers=workers)
    out = []
    for _ in range(epochs):
        seen = [(x[i], t) for x,y in loader for i,t in enumerate(unpad(y))]
        out.append(([int(t['image_id']) for _,t in seen], {int(t['image_id']): (x,t) for x,t in seen}))
    return out

def test_epochs_differ_and_seeds_repeat_with_any_number_of_workers(records):
    here, workers, other = run(records, 0), run(records, 2), run(records, 0, seed=1)
    for (ids,a),(ids2,b) in zip(here, workers):
        assert ids==ids2 and sorted(ids)==[r.image_id for r in records]
        for i in a:
            assert torch.equal(a[i][0], b[i][0])
            assert all(torch.equal(a[i][1][k], b[i][1][k]) for k in a[i][1])
    (_,first),(_,second) = here
    assert all(not torch.equal(first[i][0], second[i][0]) for i in first)          # another epoch
    assert here[0][0]!=here[1][0]
    assert sum(not torch.equal(first[i][0], other[0][1][i][0]) for i in first)>=9  # another seed

def test_images_of_a_batch_do_not_share_their_randomness(records):
    ds = DetectionDataset([records[0]]*8, 96, 1.)
    assert len({tuple(ds[i][0].flatten().tolist()) for i in range(8)})==8

def test_a_dataset_travels_to_another_process(records):
    ds = DetectionDataset(records, 96, 1., seed=3); ds.epoch = 2
    there = pickle.loads(pickle.dumps((ds[0], ds)))  # after use, so that there is an augmenter to leave behind
    assert torch.equal(there[0][0], there[1][0][0])

def test_images_without_objects_pass():
    empty = [make_record(np.full((50,80,3), 60, np.uint8), i, (50,80), []) for i in range(4)]
    full = generated_data(n_train=4, n_valid=1, size=96).train
    for recs in (empty, empty[:1]+full):
        data = DetectionData(dict(train=recs, val=recs), ('background','a','b','c','d','e','f'))
        dls = make_dls(data, size=64, bs=2, strength=1., device='cpu')
        for x,y in [*dls.train, *dls.valid]:
            assert x.shape[1:]==(3,64,64) and y['boxes_xyxy'].shape[:2]==y['labels'].shape and y['boxes_xyxy'].shape[2]==4
            assert len(unpad(y))==len(x)

@quick
@given(st.lists(st.integers(0,4), min_size=1, max_size=5))
def test_unpad_undoes_collate(counts):
    rng, items = np.random.default_rng(sum(counts)), []
    for i,n in enumerate(counts):
        lo = rng.uniform(0,.5,(n,2)); record = make_record(np.zeros((8,8,3), np.uint8), i, (8,8), [dict(box_px=[0,0,1,1], label=int(l)) for l in rng.integers(1,7,n)])
        items.append((torch.zeros(3,8,8), make_target(record, np.concatenate([lo, lo+.3], 1), np.ones(n, bool))))
    for (_,t),back in zip(items, unpad(collate(items)[1])):
        assert t.keys()==back.keys() and all(torch.equal(t[k], back[k]) for k in t)
