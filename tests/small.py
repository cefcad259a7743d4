"What several files of tests begin with: a small detector, an interruption"

import torch
from fastai.callback.core import Callback
from ssd_tutorial.config import TrainConfig
from ssd_tutorial.records import generated_data
from ssd_tutorial.trainer import new_detector


def untrained(arch, size, spread=0.5, bias=None, **more):
    """A detector whose batch norms have seen something and whose classes disagree, by the
    `spread` of their logits; with a `bias` of -2 there are boxes all over the picture."""
    data = generated_data('multiscale', 4, 2, size=64)
    torch.manual_seed(0)
    det = new_detector(data, TrainConfig(arch, size=size, weights='none', **more))
    with torch.no_grad():
        for _ in range(10):
            det.model.train()(torch.rand(2, 3, size, size))
        for name, p in det.model.named_parameters():
            if '.cls.' in name and name.endswith('weight'):
                p.normal_(std=spread / p[0].numel() ** 0.5)
            if bias is not None and '.cls.' in name and name.endswith('bias'):
                p.fill_(bias)
    det.model.eval()
    return det


class Plug(Callback):
    "Pulled before a batch of an epoch, both counted over the whole run"

    def __init__(self, epoch, batch):
        self.at = (epoch, batch)

    def before_batch(self):
        if self.training and (len(self.learn.epoch_table.rows), self.learn.iter) == self.at:
            raise KeyboardInterrupt
