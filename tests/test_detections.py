"`Detections` on odd input: more of it than the lesson has room for"
import json
import numpy as np, pytest
from PIL import Image
from ssd_tutorial.detections import Detections, coco_results, draw_boxes, draw_detections, save_results

VOCAB = ('background', 'cat', 'dog')


def some(n=3): return Detections(np.arange(4*n).reshape(n,4)%7+[[0,0,9,9]], [1+i%2 for i in range(n)], [i/n for i in range(n)], VOCAB, (20,30))


def test_rows_stay_together_and_sorted():
    dets = some(5)
    for keep in (slice(1,4), [3,0], dets.labels==2, -1, np.array([], int)):
        part = dets[keep]
        assert (np.diff(part.scores)<=0).all()
        for one in part: assert any((one.boxes_px[0]==b).all() and one.scores[0]==s for b,s in zip(dets.boxes_px, dets.scores))
    with pytest.raises(IndexError): dets[5]


@pytest.mark.parametrize('labels,message', [([1,2,3],'vocabulary knows 1 to 2'), ([0,1,2],'0 is background'), ([1,2],'3 boxes, 2 labels')])
def test_labels_that_cannot_be_right_are_refused(labels, message):
    with pytest.raises(ValueError, match=message): Detections(np.zeros((3,4)), labels, [.1,.2,.3], VOCAB, (20,30))


def test_nothing_found(tmp_path):
    nothing = Detections([], [], [], VOCAB, (20,30))
    assert len(nothing)==0 and nothing.names==[] and coco_results(nothing)==[] and 'Detections(0' in repr(nothing)
    save_results([nothing], tmp_path/'none.json')
    assert json.loads((tmp_path/'none.json').read_text())==[]


@pytest.mark.parametrize('mode', ['L','RGB','RGBA','P','CMYK'])
def test_draws_on_any_mode_and_leaves_the_original(mode):
    img = Image.new(mode, (30,20)); before = img.tobytes()
    assert draw_detections(some(), img).size==(30,20) and img.tobytes()==before


def test_draws_boxes_that_lie_outside_or_are_flipped():
    draw_boxes(Image.new('RGB',(30,20)), [[-50,-50,100,100],[25,15,5,2],[40,40,50,50],[3,3,3,3]], ['a','b','a very long name that cannot fit','d'])


def test_the_surest_label_is_on_top():
    "Two classes in one box: what shows is the picture of the surer one drawn over that of the other, in whatever order they came"
    img = Image.new('RGB', (90,60)); box = [10,30,80,55]
    for labels,scores in (([1,2],[.9,.4]), ([1,2],[.4,.9])):
        dets = Detections([box,box], labels, scores, VOCAB, (60,90)); sure, other = dets[0], dets[1]
        drawn = draw_detections(dets, img).tobytes()
        assert drawn==draw_detections(sure, draw_detections(other, img)).tobytes()!=draw_detections(other, draw_detections(sure, img)).tobytes()
