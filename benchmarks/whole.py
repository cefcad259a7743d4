"""From a photograph's file to its boxes: the shipped detector and torchvision's smallest"""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from torchvision.io import decode_image
from torchvision.models.detection import (
    SSDLite320_MobileNet_V3_Large_Weights,
    ssdlite320_mobilenet_v3_large,
)
from ssd_tutorial.detector import Detector
from ssd_tutorial.onnx_detector import OnnxDetector
from ssd_tutorial.onnx_export import export_onnx


@cache
def _home():
    return tempfile.TemporaryDirectory()


def photo(name='cat.jpg'):
    "scikit-image's cat as a file, 451 × 300"
    path = Path(_home().name) / name
    if not path.exists():
        Image.fromarray(skimage.data.chelsea()).save(path, quality=90)
    return path


def ssdlite(sure=0.0, printed=False):
    """torchvision's, untrained: its weights are not at hand. Then every class of every anchor
    passes its threshold of 0.001 and enters suppression. `sure` is added to the logits of
    background: at 12 nothing passes, which is the fastest that it can be. `printed`: as the
    example in its documentation prints it, `model.eval()` and `model(x)`, which keeps what
    gradients would need; elsewhere within `torch.inference_mode()`."""
    torch.manual_seed(0)
    net = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    for layer in net.head.classification_head.module_list:
        with torch.no_grad():
            layer[-1].bias.view(-1, 91)[:, 0] += sure
    prepare = SSDLite320_MobileNet_V3_Large_Weights.DEFAULT.transforms()

    def look(path):
        with torch.inference_mode(not printed):
            return net([prepare(decode_image(str(path)))])[0]

    return look


def exported():
    "The shipped detector as an ONNX file, run with as many threads as PyTorch has"
    file = Path(_home().name) / 'animals.onnx'
    if not file.exists():
        export_onnx(Detector.pretrained(), file)
    return OnnxDetector(file, threads=torch.get_num_threads())


def photo_case(onnx=False, sure=0.0, printed=False, **_):
    "Both decode, resize, look and suppress; what they find is not compared: one has learnt nothing"
    det, look, path = exported() if onnx else Detector.pretrained(), ssdlite(sure, printed), photo()
    assert det.predict(path).names == ['cat']
    assert (len(look(path)['boxes']) > 0) == (sure < 12)
    return lambda: det.predict(path), lambda: look(path)


def bare_network(det, paths, bs):
    "What the network alone does on inputs that lie in memory"
    inputs = torch.stack([det.input_of(Image.open(p)) for p in paths])
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    # cut as `detect_batch` cuts a batch
    parts = [p for b in inputs.split(bs) for p in b.split(max(2, torch.get_num_threads()))]
    net = det.in_use()

    @torch.no_grad()
    def bare():
        return [net(p) for p in parts]

    return bare


def bare_session(det, paths, bs):
    "What ONNX Runtime alone does, NMS among it: that is part of the graph"
    inputs = np.stack([det.input_of(Image.open(p)) for p in paths])
    how = dict(score=np.float32([det.score]), overlap=np.float32([0.5]))
    given = [dict(images=inputs[i : i + bs], **how) for i in range(0, len(paths), bs)]
    return lambda: [det.session.run(None, g) for g in given]


def folder_case(n=32, bs=16, onnx=False, **_):
    "All of `predict` on n files, against the network alone on inputs that lie in memory"
    det = exported() if onnx else Detector.pretrained()
    paths = [photo(f'{i}.jpg') for i in range(n)]
    bare = (bare_session if onnx else bare_network)(det, paths, bs)
    assert [d.names for d in det.predict(paths, bs=bs, progress=False)] == [['cat']] * n
    return lambda: det.predict(paths, bs=bs, progress=False), bare
