"""What people bring: folders as tools export them and people keep them, each with its right outcome.

Every picture is of one grey level, from which `check` works out which one it is; so a test sees not only how many records there are, but whether each
picture has got its own boxes. Pictures and labels are written by this file alone, not by the package's writers.
"""
import json, re, shutil
from pathlib import Path
import numpy as np
import pytest
from PIL import Image
import ssd_tutorial.readers as R
from ssd_tutorial.readers import DataError, load_dataset, recognise

W, H, STEP = 64, 48, 5
TRAIN, VAL, TEST = range(0,8), range(20,23), range(40,42)
SPLITS = dict(train=TRAIN, val=VAL, test=TEST)


# ---------------------------------------------------------------- pictures and labels
def objects(i): return [('cat', 2+i%7, 3, 20+i%9, 30), ('dog', 30, 5+i%5, 50, 20+i%11)]  # edges, from 0
def put(path, text, enc='utf-8'):
    path.parent.mkdir(parents=True, exist_ok=True); path.write_bytes(text if isinstance(text, bytes) else text.encode(enc)); return path
def picture(path, i):
    kind = {'.jpg': 'JPEG', '.jpeg': 'JPEG', '.jfif': 'JPEG', '.tif': 'TIFF'}.get(path.suffix.lower(), path.suffix[1:].upper())
    path.parent.mkdir(parents=True, exist_ok=True); Image.new('L', (W,H), STEP*i+5).convert('RGB').save(path, format=kind); return path
def number(image): return round((int(np.asarray(R.open_image(image))[20,20,0])-5)/STEP)

def xml(i, name=None, one=1, head='', names=None, size=True):
    rows = ''.join(f'<object><name>{(names or {}).get(n, n)}</name><bndbox><xmin>{a+one}</xmin><ymin>{b+one}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>' for n,a,b,c,d in objects(i))
    return f'{head}<annotation><filename>{name or f"{i}.jpg"}</filename>{f"<size><width>{W}</width><height>{H}</height></size>"*size}{rows}</annotation>'

def yolo(i, names=('cat','dog'), first=0):
    return ''.join(f'{names.index(n)+first} {(a+c)/2/W:.8f} {(b+d)/2/H:.8f} {(c-a)/W:.8f} {(d-b)/H:.8f}\n' for n,a,b,c,d in objects(i))

def coco(ids, name=lambda i: f'{i}.jpg', cats=((1,'cat'),(2,'dog')), first=1):
    at, images, anns = {n: c for c,n in reversed(cats)}, [], []
    for k,i in enumerate(ids, first):
        images.append(dict(id=k, file_name=name(i), width=W, height=H))
        anns += [dict(id=len(anns)+1, image_id=k, category_id=at[n], bbox=[a,b,c-a,d-b], iscrowd=0) for n,a,b,c,d in objects(i)]
    return dict(images=images, annotations=anns, categories=[dict(id=c, name=n) for c,n in cats])

def dump(path, d, **kw): return put(path, json.dumps(d), **kw)
def voc(root, ids=TRAIN, images='JPEGImages', labels='Annotations', suffix='.jpg', **kw):
    for i in ids: picture(root/images/f'{i}{suffix}', i); put(root/labels/f'{i}.xml', xml(i, f'{i}{suffix}', **kw))
def voc_list(path, ids, line='{}'): put(path, ''.join(line.format(i)+'\n' for i in ids))
def txt(root, ids=TRAIN, images='images', labels='labels', suffix='.jpg', text=yolo):
    for i in ids: picture(root/images/f'{i}{suffix}', i); put(root/labels/f'{i}.txt', text(i))
def ultra(root, yaml='train: images/train\nval: images/val\nnames: [cat, dog]\n', text=yolo, **splits):
    for s,ids in (splits or dict(train=TRAIN, val=VAL)).items(): txt(root, ids, f'images/{s}', f'labels/{s}', text=text)
    if yaml: put(root/'data.yaml', yaml)
def json_set(root, files, images, name=lambda i: f'{i}.jpg'):
    "files: annotation file of a split; images: its folder"
    for s in files:
        for i in SPLITS[s]: picture(root/images[s]/f'{i}.jpg', i)
        dump(root/files[s], coco(SPLITS[s], name, first=1+100*[*SPLITS].index(s)))


def check(data, sizes=None, vocab=('cat','dog'), objects_of=objects):
    "Split sizes; classes; and of every record the boxes and names of its own picture"
    if isinstance(sizes, int): sizes = dict(train=sizes-max(1, round(sizes*.2)), val=max(1, round(sizes*.2)))
    if sizes: assert {k: len(v) for k,v in data.splits.items()}==sizes, data.notes
    assert data.vocab==('background',*vocab)
    for split,records in data.splits.items():
        ids = [number(r.image) for r in records]; assert len({*ids})==len(ids)
        for i,r in zip(ids, records):
            want = objects_of(i); assert [data.vocab[l] for l in r.labels]==[o[0] for o in want], (r.image, i)
            np.testing.assert_allclose(r.boxes_px, np.array([o[1:] for o in want]).reshape(-1,4), atol=.02)
            if split in SPLITS and len(data.splits)>1 and 'held out' not in ' '.join(data.notes): assert i in SPLITS[split] or i>=45, (i, split)
    return data


# ---------------------------------------------------------------- layouts that load: (name, what makes it, split sizes)
THREE, TWO, TT = dict(train=8, val=3, test=2), dict(train=8, val=3), dict(train=6, val=2, test=2)
LAYOUTS = []
def layout(*sizes, kind=None):
    def add(f): LAYOUTS.append((f.__name__, f, *sizes, kind)); return f
    return add
def add(name, sizes, kind, make): LAYOUTS.append((name, make, sizes, kind))

# COCO
def roboflow_coco(r, names=('train','valid','test')): json_set(r, {s: f'{n}/_annotations.coco.json' for s,n in zip(SPLITS, names)}, dict(zip(SPLITS, names)))
add('01 roboflow coco', THREE, 'coco', roboflow_coco)
add('01 shouting', THREE, 'coco', lambda r: roboflow_coco(r, ('TRAIN','VALIDATION','TESTING')))
for names in (('Train','Validation','Test'), ('training','dev','testing'), ('train2017','val2017','test2017')):
    add(f'10 cvat {names}', THREE, 'coco', lambda r, names=names: json_set(r, {s: f'annotations/instances_{n}.json' for s,n in zip(SPLITS, names)}, {s: f'images/{n}' for s,n in zip(SPLITS, names)}))
add('11 default', 8, 'coco', lambda r: json_set(r, dict(train='annotations/instances_default.json'), dict(train='images/default')))
add('12 nested', 8, 'coco', lambda r: json_set(r, dict(train='annotations/instances_Train.json'), dict(train='images/Train/Data'), lambda i: f'Data/{i}.jpg'))
for n,way in {'20 images/': 'images/{}.jpg', '21 windows': '..\\..\\media\\upload\\4\\{}.jpg', '24 local files': '/data/local-files/?d={}.jpg', '24 deep local files': '/data/local-files/?d=disk/images/{}.jpg',
              'an absolute path': '/home/me/pets/images/{}.jpg', 'C:': 'C:\\Users\\me\\images\\{}.jpg', 'a web address': 'https://host/bucket/{}.jpg?token=a/b', 's3': 's3://bucket/images/{}.jpg',
              'a file url': 'file:///tmp/{}.jpg', 'no suffix': '{}', 'another case': '{}.JPG', 'another suffix': '{}.png', 'a prefix of the upload': '23082be0-{}.jpg', 'percent': 'my%20images/{}.jpg'}.items():
    add(n, 8, 'coco', lambda r, way=way: json_set(r, dict(train='result.json'), dict(train='images'), way.format))
add('56 fiftyone', 8, 'coco', lambda r: json_set(r, dict(train='labels.json'), dict(train='data')))
add('56b fiftyone splits', TWO, 'coco', lambda r: json_set(r, dict(train='train/labels.json', val='validation/labels.json'), dict(train='train/data', val='validation/data')))
add('57 own names', TWO, 'coco', lambda r: json_set(r, dict(train='train_coco.json', val='val_coco.json'), dict(train='coco_images', val='coco_images')))
add('57 other names', TWO, 'coco', lambda r: json_set(r, dict(train='pets_training.json', val='pets-Dev.json'), dict(train='photos', val='photos')))
add('57b beside', 8, 'coco', lambda r: json_set(r, dict(train='labels_my-project-name_2024-05-01-10-00-00.json'), dict(train='.')))
add('57d split folders', TWO, 'coco', lambda r: json_set(r, dict(train='train/annotations.json', val='val/annotations.json'), dict(train='train/images', val='val/images')))
add('57e folders of pictures', TWO, 'coco', lambda r: json_set(r, dict(train='annotations/train.json', val='annotations/val.json'), dict(train='train_images', val='val_images')))
add('a json deep inside', 8, 'coco', lambda r: json_set(r, dict(train='export/v3/coco/final.json'), dict(train='media/2024')))
add('95 fastai', TWO, 'coco', lambda r: (json_set(r, dict(train='train.json', val='valid.json'), dict(train='train', val='train')), put(r/'train.csv', 'fname,labels,is_valid\n')))
add('two parts of a split', 11, 'coco', lambda r: (dump(r/'train'/'part_a.json', coco(TRAIN)), dump(r/'train'/'part_b.json', coco(VAL, first=100)), [picture(r/'train'/f'{i}.jpg', i) for i in (*TRAIN,*VAL)]))
@layout(TWO, kind='coco')
def with_captions_and_keypoints(r):
    json_set(r, dict(train='annotations/instances_train2017.json', val='annotations/instances_val2017.json'), dict(train='train2017', val='val2017'))
    for n in ('captions_val2017','panoptic_val2017'): dump(r/'annotations'/f'{n}.json', dict(images=[], annotations=[]))
    dump(r/'annotations'/'person_keypoints_train2017.json', coco(TRAIN))
@layout(8, kind='coco')
def same_names_in_two_folders_58(r):
    name = lambda i: f'{"ab"[i%2]}/frame_{i//2}.jpg'
    for i in TRAIN: picture(r/'images'/name(i), i)
    dump(r/'annotations.json', coco(TRAIN, name))
@layout(dict(train=3, val=3), kind='coco')
def same_names_in_train_and_val_59(r):
    for s,ids in dict(train=range(3), val=VAL).items():
        for k,i in enumerate(ids): picture(r/'images'/s/f'frame_{k}.jpg', i)
        dump(r/'annotations'/f'instances_{s}.json', coco(ids, lambda i, ids=ids: f'frame_{ids.index(i)}.jpg'))
@layout(8, kind='coco')
def ids_as_text_in_one_list_50b(r):
    json_set(r, dict(train='a.json'), dict(train='images')); d = json.loads((r/'a.json').read_text())
    for im in d['images']: im['id'] = str(im['id'])
    for c in d['categories']: c['id'] = float(c['id'])
    dump(r/'a.json', d)
@layout(8, kind='coco')
def two_categories_of_a_name_53(r):
    d = coco(TRAIN); d['categories'].append(dict(id=3, name='cat'))
    for a in d['annotations'][::4]: a['category_id'] = 3
    dump(r/'a.json', d); [picture(r/'images'/f'{i}.jpg', i) for i in TRAIN]
for n,names in {'Background': 'Background', '_background_': '_background_', 'BACKGROUND': 'BACKGROUND'}.items():
    add(f'01b {n}', 8, 'coco', lambda r, n=n: (dump(r/'a.json', coco(TRAIN, cats=((0,n),(1,'cat'),(2,'dog')))), [picture(r/f'{i}.jpg', i) for i in TRAIN]))

# VOC
add('17b a list called default', 8, 'voc', lambda r: (voc(r), voc_list(r/'ImageSets/Main/default.txt', TRAIN)))
add('lists in capitals', THREE, 'voc', lambda r: [(voc(r, ids), voc_list(r/f'ImageSets/Main/{n}.txt', ids)) for n,ids in zip(('Train','Validation','TEST'), SPLITS.values())])
add('22 label studio', 8, 'voc', lambda r: [(picture(r/'images'/f'23082be{i}-IMG.jpg', i), put(r/'Annotations'/f'23082be{i}-IMG.xml', xml(i, f'23082be{i}-IMG'))) for i in TRAIN])
for images,labels in (('images','annotations'), ('images','annotations/xmls'), ('images','labels'), ('Photos','Label'), ('pics/all','xml/all'), ('.','.'), ('images','images'), ('.','xml')):
    add(f'30 {labels} and {images}', 8, 'voc', lambda r, i=images, l=labels: voc(r, images=i, labels=l))
add('30b tensorflow', TT, 'voc', lambda r: [voc(r, ids, f'images/{s}', f'images/{s}') for s,ids in dict(train=TRAIN, test=TEST).items()])
add('30c one folder down', 8, 'voc', lambda r: voc(r/'raccoon', images='images', labels='annotations'))
add('three folders down', 8, 'voc', lambda r: voc(r/'a'/'b'/'c'))
add('31b split folders', TT, 'voc', lambda r: [voc(r/s, ids) for s,ids in dict(train=TRAIN, test=TEST).items()])
add('split folders below', TWO, 'voc', lambda r: [voc(r, ids, f'images/{s}', f'annotations/{s}') for s,ids in dict(train=TRAIN, val=VAL).items()])
add('roboflow voc', THREE, 'voc', lambda r: [voc(r/n, ids, '.', '.') for n,ids in zip(('train','valid','test'), SPLITS.values())])
add('named sets', TWO, 'voc', lambda r: [voc(r/n, ids, 'img', 'xml') for n,ids in dict(pets_training_set=TRAIN, pets_validation_set=VAL).items()])
add('32 pets with trimaps', 8, 'voc', lambda r: (voc(r, images='images', labels='annotations/xmls'), [picture(r/'annotations'/'trimaps'/f'{i}.png', 30) for i in TRAIN]))
add('voc with masks', 8, 'voc', lambda r: ([(picture(r/'JPEGImages'/f'{i}.jpg', i), picture(r/'SegmentationClass'/f'{i}.png', 30), put(r/'Annotations'/f'{i}.xml', xml(i, f'{i}'))) for i in TRAIN]))
add('34 vocdevkit', TWO, 'voc', lambda r: [(voc(r/'VOCdevkit'/'VOC2007', ids), voc_list(r/f'VOCdevkit/VOC2007/ImageSets/Main/{s}.txt', ids)) for s,ids in dict(train=TRAIN, val=VAL).items()])
add('39b pairs', TWO, 'voc', lambda r: [(voc(r, ids), voc_list(r/f'{s}.txt', ids, './JPEGImages/{0}.jpg ./Annotations/{0}.xml')) for s,ids in dict(train=TRAIN, val=VAL).items()])
add('39b names', TWO, 'voc', lambda r: [(voc(r, ids), voc_list(r/f'{s}.txt', ids)) for s,ids in dict(train=TRAIN, valid=VAL).items()])
add('39b pictures', TWO, 'voc', lambda r: [(voc(r, ids), voc_list(r/f'{s}.txt', ids, 'data/JPEGImages/{}.jpg')) for s,ids in dict(train=TRAIN, val=VAL).items()])
add('42 vott', TWO, 'voc', lambda r: [(voc(r, ids), [voc_list(r/f'ImageSets/Main/{c}_{s}.txt', ids, '{}.jpg 1') for c in ('cat','dog')]) for s,ids in dict(train=TRAIN, val=VAL).items()])
add('32 pets with lists', TT, 'voc', lambda r: [(voc(r, ids, 'images', 'annotations/xmls'), voc_list(r/f'annotations/{s}.txt', ids, '{} 1 1 1')) for s,ids in dict(trainval=TRAIN, test=TEST).items()])
add('a readme with numbers', 8, 'voc', lambda r: (voc(r), put(r/'README.txt', '1 2 3 4 5 6\n'), put(r/'labels.txt', 'cat\ndog\n'), put(r/'data.yaml', 'names: [cat, dog]\n')))
add('trainval and val', TWO, 'voc', lambda r: (voc(r), voc(r, VAL), voc_list(r/'ImageSets/Main/trainval.txt', (*TRAIN,*VAL)), voc_list(r/'ImageSets/Main/val.txt', VAL)))
add('train and trainval', TWO, 'voc', lambda r: (voc(r), voc(r, VAL), voc_list(r/'ImageSets/Main/trainval.txt', (*TRAIN,*VAL)), voc_list(r/'ImageSets/Main/train.txt', TRAIN)))
@layout(10, kind='voc')
def suffixes_36(r):
    for i,s in enumerate(('.JPG','.jpeg','.PNG','.webp','.tif','.TIFF','.bmp','.BMP','.jfif','.Png')): picture(r/'JPEGImages'/f'{i}{s}', i); put(r/'Annotations'/f'{i}.xml', xml(i, f'{i}'))
@layout(dict(train=4, val=3), kind='voc')
def same_names_side_by_side(r):
    for s,ids in dict(train=range(4), val=VAL).items():
        for k,i in enumerate(ids): picture(r/s/f'{k}.jpg', i); put(r/s/f'{k}.xml', xml(i, f'{k}.jpg'))
# YOLO
def roboflow(r, yaml): [txt(r/n, ids) for n,ids in dict(train=TRAIN, valid=VAL, test=TEST).items()]; put(r/'data.yaml', yaml+'names: [cat, dog]\n')
for n,yaml in {'03': 'train: ../train/images\nval: ../valid/images\ntest: ../test/images\n', '04 prefixed': 'train: Pets-1/train/images\nval: Pets-1/valid/images\ntest: ../test/images\n',
               'windows': 'train: C:\\data\\pets\\train\\images\nval: C:\\data\\pets\\valid\\images\ntest: ..\\test\\images\n', 'colab': 'path: /content/pets\ntrain: /content/pets/train/images/\nval: /content/pets/valid/images/\ntest: /content/pets/test/images/\n',
               'valid, capitals': 'Train: train/images\nvalid: valid/images\nTest: test/images\n', 'only names': '', 'globs': 'train: train/images/*.jpg\nval: valid/images/*.jpg\ntest: test/images/*.jpg\n',
               'lists': 'train: [train/images]\nval: [valid/images]\ntest: [test/images]\n', 'null': 'train: null\nval:\ntest: ~\n'}.items():
    add(f'roboflow yolo, {n}', THREE, 'yolo', lambda r, yaml=yaml: roboflow(r, yaml))
add('no test exported', TWO, 'yolo', lambda r: ultra(r, 'train: images/train\nval: images/val\ntest: ../test/images\nnames: [cat, dog]\n'))
add('06 darknet', TWO, 'yolo', lambda r: [(txt(r, ids, s, s), put(r/s/'_darknet.labels', 'cat\ndog\n')) for s,ids in dict(train=TRAIN, valid=VAL).items()])
def cvat(r, splits, nested='', data='data/', meta=True):
    for s,ids in splits.items(): txt(r, ids, f'obj_{s}_data/{nested}', f'obj_{s}_data/{nested}'); voc_list(r/f'{s}.txt', ids, f'{data}obj_{s}_data/{nested}{{}}.jpg')
    put(r/'obj.names', 'cat\ndog\n')
    if meta: put(r/'obj.data', 'classes = 2\n'+''.join(f'{s} = data/{s}.txt\n' for s in splits)+'names = data/obj.names\nbackup = backup/\n')
add('13 cvat yolo', 8, 'yolo', lambda r: cvat(r, dict(train=TRAIN)))
add('14 cvat yolo, two', TWO, 'yolo', lambda r: cvat(r, dict(train=TRAIN, valid=VAL)))
add('14 capitals', THREE, 'yolo', lambda r: cvat(r, dict(Train=TRAIN, Validation=VAL, Test=TEST)))
add('14 without obj.data', TWO, 'yolo', lambda r: cvat(r, dict(train=TRAIN, valid=VAL), meta=False))
add('14 without lists', TWO, 'yolo', lambda r: (cvat(r, dict(train=TRAIN, valid=VAL), meta=False), [(r/f'{s}.txt').unlink() for s in ('train','valid')]))
add('15 nested', 8, 'yolo', lambda r: cvat(r, dict(train=TRAIN), 'day1/'))
def listed(r, line, yaml='path: .\ntrain: train.txt\nval: val.txt\nnames: [cat, dog]\n', end='\n'):
    ultra(r, yaml); [put(r/f'{s}.txt', ''.join(line.format(s=s, i=i)+end for i in ids)) for s,ids in dict(train=TRAIN, val=VAL).items()]
for n,line in {'16 prefix': 'data/images/{s}/{i}.jpg', '16c': 'images/{s}/{i}.jpg', '63c dot': './images/{s}/{i}.jpg', '63 backslashes': 'images\\{s}\\{i}.jpg', '63b elsewhere': '/content/pets/images/{s}/{i}.jpg', 'drive': 'D:\\pets\\images\\{s}\\{i}.jpg'}.items():
    add(f'list of {n}', TWO, 'yolo', lambda r, line=line: listed(r, line))
add('63 windows', TWO, 'yolo', lambda r: listed(r, 'images\\{s}\\{i}.jpg', 'path: C:\\Users\\me\\pets\ntrain: train.txt\nval: val.txt\nnames: [cat, dog]\n', '\r\n'))
add('lists of another machine', TWO, 'yolo', lambda r: listed(r, 'images/{s}/{i}.jpg', 'train: /content/pets/train.txt\nval: /content/pets/val.txt\nnames: [cat, dog]\n'))
add('lists and no entry', TWO, 'yolo', lambda r: listed(r, './images/{s}/{i}.jpg', 'names: [cat, dog]\n'))
add('23 label studio', 8, 'yolo', lambda r: (txt(r), put(r/'classes.txt', 'cat\ndog\n'), dump(r/'notes.json', dict(categories=[], info={}))))
add('45 a folder in a folder', TWO, 'yolo', lambda r: (ultra(r/'pets'), put(r/'__MACOSX'/'pets'/'._data.yaml', '\0\5\x16')))
add('61 text keys', TWO, 'yolo', lambda r: ultra(r, 'train: images/train\nval: images/val\nnames: {"0": cat, "1": dog}\n'))
add('keys from 1', TWO, 'yolo', lambda r: ultra(r, 'names: {1: cat, 2: dog}\n', lambda i: yolo(i, first=1)))
add('a Background first', TWO, 'yolo', lambda r: ultra(r, 'names: [Background, cat, dog]\n', lambda i: yolo(i, first=1)))
add('67b numbers with a point', TWO, 'yolo', lambda r: ultra(r, text=lambda i: '\r\n'.join('.0 '.join(l.split(' ', 1)) for l in yolo(i).splitlines())))
for images,labels in (('Images','Labels'), ('.','.'), ('photos','yolo_labels'), ('images','bbox_txt'), ('data/images','data/labels')):
    add(f'69 {images} and {labels}', 8, 'yolo', lambda r, i=images, l=labels: (txt(r, images=i, labels=l), put(r/'classes.txt', 'cat\ndog\n')))
add('70 capital splits', THREE, 'yolo', lambda r: ultra(r, 'names: [cat, dog]\n', Train=TRAIN, Val=VAL, Test=TEST))
add('70 training, dev', THREE, 'yolo', lambda r: ultra(r, 'names: [cat, dog]\n', training=TRAIN, dev=VAL, testing=TEST))
add('72 classes beside labels', TWO, 'yolo', lambda r: (ultra(r, None), [put(r/'labels'/s/'classes.txt', 'cat\ndog\n') for s in ('train','val')]))
add('73 yaml elsewhere', TWO, 'yolo', lambda r: (ultra(r/'ds', None), put(r/'custom.yaml', 'path: ./ds\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n')))
def outline(i): return ''.join(f'{k} {a/W} {b/H} {c/W} {b/H} {c/W} {d/H} {a/W} {d/H}\n' for k,(n,a,b,c,d) in enumerate(objects(i)))
add('74 obb', TWO, 'yolo', lambda r: ultra(r, text=outline))
add('62 mixed', TWO, 'yolo', lambda r: ultra(r, text=lambda i: outline(i).splitlines()[0]+'\n'+yolo(i).splitlines()[1]))
for shape,points in (('[4, 3]', '.5 .5 1 .52 .48 0 .6 .4 2 .7 .3 1'), ('[2, 2]', '.5 .5 .1 .9'), ('[17, 3]', ' '.join('.5 .5 2' for _ in range(17)))):
    add(f'65 keypoints {shape}', TWO, 'yolo', lambda r, s=shape, p=points: ultra(r, f'kpt_shape: {s}\nnames: [cat, dog]\n', lambda i: ''.join(f'{l} {p}\n' for l in yolo(i).splitlines())))
add('65 keypoints, no shape given', TWO, 'yolo', lambda r: ultra(r, text=lambda i: ''.join(l+''.join(f' {l.split()[1]} {l.split()[2]} {v}' for v in (0,1,2))+'\n' for l in yolo(i).splitlines())))
add('75 a mark', TWO, 'yolo', lambda r: (ultra(r), put(r/'data.yaml', '\ufefftrain: images/train\nval: images/val\nnames: [cat, dog]\n'), put(r/'labels/train/1.txt', '\ufeff'+yolo(1).replace('\n','\r\n'))))
add('77 a.jpg.txt', 8, 'yolo', lambda r: [put(r/'classes.txt', 'cat\ndog\n'), *[(picture(r/'images'/f'{i}.jpg', i), put(r/'labels'/f'{i}.jpg.txt', yolo(i))) for i in TRAIN]])
add('78 beside in splits', TWO, 'yolo', lambda r: [put(r/'data.yaml', 'train: train\nval: valid\nnames: [cat, dog]\n'), *[txt(r, ids, s, s) for s,ids in dict(train=TRAIN, valid=VAL).items()]])
add('pictures called like splits', 8, 'yolo', lambda r: [put(r/'classes.txt', 'cat\ndog\n'), *[(picture(r/'images'/f'{s}_{i}.jpg', i), put(r/'labels'/f'{s}_{i}.txt', yolo(i))) for i,s in zip(TRAIN, ('train','val')*4)]])
@layout(dict(train=4, val=3), kind='yolo')
def same_names_in_yolo(r):
    for s,ids in dict(train=range(4), val=VAL).items():
        for k,i in enumerate(ids): picture(r/'images'/s/f'{k}.jpg', i); put(r/'labels'/s/f'{k}.txt', yolo(i))
    put(r/'data.yaml', 'names: [cat, dog]\n')

@pytest.mark.parametrize('name,make,sizes,kind', LAYOUTS, ids=[x[0] for x in LAYOUTS])
def test_layout(name, make, sizes, kind, tmp_path):
    root = tmp_path/'set'; root.mkdir(); make(root)
    assert recognise(root)==kind; check(load_dataset(root), sizes)


# ---------------------------------------------------------------- hidden and system files
REST = ['.ipynb_checkpoints/0-checkpoint.jpg', '._0.jpg', '@eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg', '#recycle/0.jpg', '$RECYCLE.BIN/0.jpg', '.Trash-1000/files/0.jpg', 'Thumbs.db', 'desktop.ini', '.DS_Store', '.git/0.jpg',
        '.ipynb_checkpoints/0-checkpoint.xml', '.ipynb_checkpoints/0-checkpoint.txt', '._0.xml', '._0.txt', '.cache/all.json', '._data.yaml', '__MACOSX/._0.jpg']
MAKERS = dict(voc=lambda r: (voc(r), voc_list(r/'ImageSets/Main/train.txt', TRAIN)), flat=lambda r: voc(r, images='.', labels='.'), yolo=ultra, coco=lambda r: json_set(r, dict(train='a.json'), dict(train='images')))

@pytest.mark.parametrize('kind', list(MAKERS))
def test_what_the_system_leaves_is_no_data(kind, tmp_path):
    MAKERS[kind](tmp_path); before = load_dataset(tmp_path)
    first = next(tmp_path.rglob('0.jpg')).read_bytes()
    for folder in {p.parent for p in tmp_path.rglob('*') if p.is_file()}:
        for rest in REST: put(folder/rest, first if rest.endswith('.jpg') else b'\0\5\x16\7\xb0')
    after = load_dataset(tmp_path); check(after, {s: len(rs) for s,rs in before.splits.items()}); assert after.notes==before.notes
    assert {p.name for p in R.list_images(tmp_path)}=={p.name for s in before.splits.values() for r in s for p in [Path(r.image)]}


# ---------------------------------------------------------------- what cannot be told is not guessed
REFUSED = {}
def refused(*says, policies=('raise','fix','skip')):
    def add(f): REFUSED[f.__name__] = (f, says, policies); return f
    return add
def refuse(name, make, *says, policies=('raise','fix','skip')): REFUSED[name] = (make, says, policies)
refuse('day1 and day2', lambda r: [(dump(r/f'{n}.json', coco(ids)), [picture(r/'images'/f'{i}.jpg', i) for i in ids]) for n,ids in dict(day1=TRAIN, day2=VAL).items()], "'day1', 'day2'", 'train, val and test')
refuse('train and holdout', lambda r: [(dump(r/'annotations'/f'instances_{n}.json', coco(ids)), [picture(r/'images'/f'{i}.jpg', i) for i in ids]) for n,ids in dict(train=TRAIN, holdout=VAL).items()], "holdout")
refuse('lists of two days', lambda r: (voc(r, range(8)), voc_list(r/'ImageSets/Main/day1.txt', range(4)), voc_list(r/'ImageSets/Main/day2.txt', range(4,8))), "'day1', 'day2'")
refuse('xml in no split', lambda r: (voc(r, TRAIN, 'train', 'train'), voc(r, VAL, 'more', 'more')), 'more/20.xml', policies=('raise',))
refuse('xml and text', lambda r: (voc(r, images='images', labels='annotations'), txt(r), put(r/'classes.txt', 'cat\ndog\n')), 'VOC XML', 'YOLO text', 'annotations', 'labels', '--data voc:', '--data yolo:')
refuse('xml and text, flat', lambda r: (voc(r, images='.', labels='.'), txt(r, images='.', labels='.'), put(r/'classes.txt', 'cat\ndog\n')), 'VOC XML', 'YOLO text')
refuse('xml and json', lambda r: (voc(r), dump(r/'coco.json', coco(TRAIN))), 'VOC XML', 'COCO JSON')
refuse('two years', lambda r: [(voc(r/y, ids), voc_list(r/y/'ImageSets/Main/trainval.txt', ids)) for y,ids in dict(VOC2007=TRAIN, VOC2012=VAL).items()], 'VOC2007', 'VOC2012', '--data')
refuse('two sets without lists', lambda r: [voc(r/y, ids) for y,ids in dict(cats=TRAIN, dogs=VAL).items()], 'cats', 'dogs', '--data')
refuse('two yaml', lambda r: [ultra(r/n) for n in ('a','b')], '/a', '/b', '--data')
refuse('two files of one split', lambda r: [(dump(r/n/'train.json', coco(TRAIN)), [picture(r/n/f'{i}.jpg', i) for i in TRAIN]) for n in 'ab'], 'a/train.json', 'b/train.json')
refuse('two files about the same', lambda r: ([dump(r/n, coco(TRAIN)) for n in ('train.json','train_data.json')], [picture(r/f'{i}.jpg', i) for i in TRAIN]), 'train.json', 'train_data.json', 'same pictures')
refuse('either of two pictures', lambda r: (dump(r/'a.json', coco([1])), picture(r/'images/x/1.jpg', 1), picture(r/'images/y/1.jpg', 2)), 'images/x/1.jpg or images/y/1.jpg', policies=('raise',))
refuse('25 no pictures', lambda r: (txt(r), shutil.rmtree(r/'images'), (r/'images').mkdir(), put(r/'classes.txt', 'cat\ndog\n')), 'images/ is empty: copy the pictures there')
refuse('no pictures of voc', lambda r: (voc(r), shutil.rmtree(r/'JPEGImages'), (r/'JPEGImages').mkdir()), 'JPEGImages/ is empty: copy the pictures there')
refuse('04 nowhere', lambda r: ultra(r, 'train: images/trainn\nval: nowhere/at/all\nnames: [cat, dog]\n', **{'a': TRAIN}), 'nowhere', policies=('raise',))
refuse('val nowhere', lambda r: ultra(r, 'train: images/a\nval: images/valid\nnames: [cat, dog]\n', a=TRAIN), 'val: "images/valid" leads nowhere', policies=('raise',))
refuse('another split is no way out', lambda r: (txt(r/'valid', VAL), put(r/'data.yaml', 'train: ../train/images\nval: ../valid/images\nnames: [cat, dog]\n')), 'train: "../train/images" leads nowhere', policies=('raise',))
refuse('67 from one', lambda r: ultra(r, text=lambda i: yolo(i, first=1)), 'from 1 to 2', '2 names', 'count from 1')
refuse('67 one class from one', lambda r: ultra(r, 'names: [cat]\n', text=lambda i: yolo(i, first=1).splitlines()[0]), 'count from 1')
refuse('67c pixels', lambda r: ultra(r, text=lambda i: ''.join(f'0 {a} {b} {c} {d}\n' for n,a,b,c,d in objects(i))), '0.txt: line 1 is', 'look like pixels', policies=('raise',))
refuse('an empty name', lambda r: (ultra(r, None), put(r/'classes.txt', 'cat\n\ndog\n')), 'line 2 is empty')
refuse('lists of classes that differ', lambda r: (ultra(r, None), put(r/'classes.txt', 'cat\ndog\n'), put(r/'labels/classes.txt', 'dog\ncat\n')), 'different classes')
for name in ('instances_val.json','val_coco.json','val/annotations.json'):
    refuse(f'a damaged {name}', lambda r, name=name: (json_set(r, dict(train=name.replace('val', 'train')), dict(train='images')), put(r/name, '{"images": [')), name, 'not readable JSON')
refuse('a film', lambda r: (put(r/'clip.mp4', b'\0\0\0\x18ftypmp42'), picture(r/'a.jpg', 1)), 'clip.mp4 is a video: extract frames', 'not a data set we know')
refuse('another id for a name', lambda r: [(dump(r/f'{s}.json', coco(SPLITS[s], cats=c)), [picture(r/'images'/f'{i}.jpg', i) for i in SPLITS[s]]) for s,c in dict(train=((1,'cat'),(2,'dog')), val=((2,'cat'),(1,'dog'))).items()], 'in another split')

@pytest.mark.parametrize('name', list(REFUSED))
def test_refused(name, tmp_path):
    make, says, policies = REFUSED[name]; root = tmp_path/'set'; root.mkdir(); make(root)
    for policy in policies:
        with pytest.raises(DataError) as e: load_dataset(root, policy)
        assert all(s in str(e.value) for s in says), str(e.value)
        assert '\n' not in str(e.value)


def test_ways_out_of_two_readings(tmp_path):
    voc(tmp_path, images='images', labels='annotations'); txt(tmp_path); put(tmp_path/'classes.txt', 'cat\ndog\n')
    check(load_dataset(f'voc:{tmp_path}'), 8); check(load_dataset(f'yolo:{tmp_path}'), 8)
    with pytest.raises(DataError, match='no COCO JSON'): load_dataset(f'coco:{tmp_path}')


def test_a_list_that_leads_nowhere(tmp_path):
    "F11: its pictures are missing, not their labels; nothing is dropped in silence"
    ultra(tmp_path, 'train: train.txt\nval: val.txt\nnames: [cat, dog]\n', a=TRAIN, val=VAL)
    voc_list(tmp_path/'train.txt', TRAIN, 'imagez/q{}.jpg'); voc_list(tmp_path/'val.txt', VAL, 'images/val/{}.jpg')
    with pytest.raises(DataError, match='train: none of the 8 pictures that train.txt lists is there; the first is imagez/q0.jpg'): load_dataset(tmp_path)
    assert load_dataset(tmp_path, 'fix').counts['images']==8
    voc_list(tmp_path/'train.txt', [*range(7),77], 'images/a/{}.jpg')
    with pytest.raises(DataError, match='77.jpg: .*no such image'): load_dataset(tmp_path)
    assert load_dataset(tmp_path, 'skip').counts['images']==1


# ---------------------------------------------------------------- categories
def test_union_of_categories_02(tmp_path):
    for s,cats in dict(train=((1,'cat'),(2,'dog')), val=((1,'cat'),(2,'dog'),(3,'bird'))).items():
        d = coco(SPLITS[s], cats=cats); [picture(tmp_path/s/f'{i}.jpg', i) for i in SPLITS[s]]
        if s=='val': d['annotations'][0]['category_id'] = 3
        dump(tmp_path/s/'_annotations.coco.json', d)
    data = load_dataset(tmp_path); assert data.vocab==('background','cat','dog','bird') and data.category_ids==(0,1,2,3)
    assert data.valid[0].labels[0]==3 and len(load_dataset(tmp_path, only=('val',)).vocab)==4==len(load_dataset(tmp_path, only=('train',)).vocab)


@pytest.mark.parametrize('names,vocab', [('[no, yes]', ('no','yes')), ('[01, 1e3]', ('01','1e3')), ('[off, 2001-01-01]', ('off','2001-01-01')), ('[null, ~]', ('null','~')), ('{0: true, 1: 0x1F}', ('true','0x1F'))])
def test_names_are_words_61(names, vocab, tmp_path):
    ultra(tmp_path, f'names: {names}\n'); assert load_dataset(tmp_path).vocab[1:]==vocab


def test_one_name_twice(tmp_path):
    ultra(tmp_path, 'names: [cat, cat]\n'); data = load_dataset(tmp_path); assert data.vocab==('background','cat') and 'cat: named twice' in ' '.join(data.notes)
    assert all((r.labels==1).all() and len(r.labels)==2 for r in data.train)


def test_spellings_that_differ_in_case_40(tmp_path):
    voc(tmp_path); put(tmp_path/'Annotations'/'3.xml', xml(3, names=dict(cat='Cat')))
    data = load_dataset(tmp_path); assert data.vocab[1:]==('Cat','cat','dog') and any('Cat and cat' in n and 'case' in n for n in data.notes)


def test_messages_speak_in_the_files_words(tmp_path):
    ultra(tmp_path/'y'); put(tmp_path/'y/labels/train/3.txt', '7 .5 .5 .2 .2\n')
    with pytest.raises(DataError, match=r'3.jpg: object 0 \(class 7\) is none of the 2 classes \(cat, dog\)'): load_dataset(tmp_path/'y')
    json_set(tmp_path/'c', dict(train='a.json'), dict(train='images')); d = json.loads((tmp_path/'c/a.json').read_text()); d['annotations'][0]['category_id'] = 99; dump(tmp_path/'c/a.json', d)
    with pytest.raises(DataError, match=r'0.jpg: object 0 \(category 99, which "categories" does not list\) is none of the 2 classes'): load_dataset(tmp_path/'c')


def test_coco_ids_that_count_from_one(tmp_path):
    d = coco(TRAIN, cats=((0,'cat'),(1,'dog'))); [picture(tmp_path/f'{i}.jpg', i) for i in TRAIN]
    for a in d['annotations']: a['category_id'] += 1
    dump(tmp_path/'a.json', d)
    for policy in R.ON_ERROR:
        with pytest.raises(DataError, match='seem to count from 1'): load_dataset(tmp_path, policy)


# ---------------------------------------------------------------- pictures without annotation
def test_negatives_when_asked_35_39(tmp_path):
    none = lambda i: [] if i in (45,46) else objects(i)
    flat, lists, text, js = (tmp_path/n for n in ('flat','lists','text','js'))
    voc(flat, images='.', labels='.'); voc(lists); voc(lists, VAL); txt(text, images='.', labels='.'); put(text/'classes.txt', 'cat\ndog\n'); json_set(js, dict(train='a.json'), dict(train='images'))
    voc_list(lists/'ImageSets/Main/train.txt', [*TRAIN,45,46]); voc_list(lists/'ImageSets/Main/val.txt', VAL)
    for folder in (flat, lists/'JPEGImages', text, js/'images'): [picture(folder/f'{i}.jpg', i) for i in (45,46)]
    for root in (flat, text, js):
        left = load_dataset(root); check(left, 8); assert '45.jpg, 46.jpg' in ' '.join(left.notes) and 'unlabelled="negative"' in ' '.join(left.notes)
        used = check(load_dataset(root, unlabelled='negative'), 10, objects_of=none); assert not used.counts['images']
    with pytest.raises(DataError, match='45.xml: no such annotation.*unlabelled="negative"'): load_dataset(lists)
    check(load_dataset(lists, unlabelled='negative'), dict(train=10, val=3), objects_of=none)
    assert load_dataset(lists, 'fix').counts['images']==2
    with pytest.raises(DataError, match='choose leave or negative'): load_dataset(flat, unlabelled='ignore')


def test_yolo_negatives_76(tmp_path):
    ultra(tmp_path); [(tmp_path/'labels/train'/f'{i}.txt').unlink() for i in (0,1)]
    check(load_dataset(tmp_path), TWO, objects_of=lambda i: [] if i<2 else objects(i))
    shutil.rmtree(tmp_path/'labels/val'); data = load_dataset(tmp_path); assert 'val: none of its 3 images has a label file' in ' '.join(data.notes) and len(data.train)+len(data.valid)==8
    shutil.copytree(tmp_path/'images/val', tmp_path/'images/unlabelled'); (tmp_path/'data.yaml').write_text('names: [cat, dog]\n')
    assert 'no label file' in ' '.join(load_dataset(tmp_path).notes)


def test_lists_and_what_is_on_none(tmp_path):
    "A test list without annotations is left out with its number, and annotations on no list are named"
    voc(tmp_path); voc(tmp_path, VAL); voc_list(tmp_path/'ImageSets/Main/train.txt', TRAIN); voc_list(tmp_path/'ImageSets/Main/test.txt', range(100,104))
    data = load_dataset(tmp_path); assert len(data.train)+len(data.valid)==8 and data.counts['images']==4
    assert 'test: none of its 4 images has an annotation; it is left out' in data.notes and any('3 annotations are on no list' in n and '20.xml' in n for n in data.notes)


def test_a_class_0_that_nobody_has(tmp_path):
    ultra(tmp_path, 'names: [cat, dog, bird]\n', lambda i: yolo(i, first=1)); assert any('no object is of class 0 (cat)' in n for n in load_dataset(tmp_path).notes)


def test_nothing_labelled_92(tmp_path):
    ultra(tmp_path, text=lambda i: ''); data = load_dataset(tmp_path); assert {k: len(v) for k,v in data.splits.items()}==TWO
    assert [n for n in data.notes if 'no objects' in n]==['train: no objects on its 8 images','val: no objects on its 3 images']


# ---------------------------------------------------------------- encodings, masks
@pytest.mark.parametrize('enc,declared', [('gbk','GBK'), ('gb18030','gb2312'), ('big5','Big5'), ('utf-16','utf-16'), ('utf-16','UTF-16LE'), ('utf-8-sig','utf-8'), ('utf-8','UTF-8'), ('euc-jp','EUC-JP')])
def test_encodings_37(enc, declared, tmp_path):
    names = dict(cat='大', dog='小')
    for i in TRAIN: picture(tmp_path/'JPEGImages'/f'{i}.jpg', i); put(tmp_path/'Annotations'/f'{i}.xml', xml(i, head=f'<?xml version="1.0" encoding="{declared}"?>\n', names=names).encode(enc))
    check(load_dataset(tmp_path), 8, tuple(sorted(names.values())), lambda i: [(names[n],*b) for n,*b in objects(i)])


@pytest.mark.parametrize('declared', ['GBK','utf-8','utf-16'])
def test_entities_are_refused_in_any_encoding(declared, tmp_path):
    text = f'<?xml version="1.0" encoding="{declared}"?>\n<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/hostname">]><annotation><filename>狗&a;</filename></annotation>'
    put(tmp_path/'a.xml', text.encode(declared))
    with pytest.raises(DataError, match='declares entities'): R.read_voc_xml(tmp_path/'a.xml')


def rle(box, compressed):
    import faster_coco_eval.core.mask as mask
    x1,y1,x2,y2 = box; m = np.zeros((H,W), np.uint8); m[y1:y2,x1:x2] = 1
    if compressed: return dict(size=[H,W], counts=mask.encode(np.asfortranarray(m))['counts'].decode())
    flat = m.ravel(order='F'); cuts = np.flatnonzero(np.diff(flat))+1; return dict(size=[H,W], counts=np.diff([0,*cuts,flat.size]).tolist())

@pytest.mark.parametrize('compressed', [False,True])
@pytest.mark.parametrize('bbox', [None, [], [0,0,0,0]])
def test_masks_give_their_box_51(bbox, compressed, tmp_path):
    d = coco(TRAIN); [picture(tmp_path/f'{i}.jpg', i) for i in TRAIN]
    for a in d['annotations']: x,y,w,h = a['bbox']; a['segmentation'] = rle((x,y,x+w,y+h), compressed); a['bbox'] = bbox
    dump(tmp_path/'a.json', d); check(load_dataset(tmp_path), 8)


@pytest.mark.parametrize('mask', [dict(size=[H,W], counts=[1,2,3]), dict(size=[H,W], counts='\x01\x02'), dict(size=[10**9,10**9], counts='0'), dict(size=[H], counts=[]), dict(counts='abc'), dict(size=[H,W], counts=[-5,H*W+5]), dict(size=[H,W], counts=[H*W]), dict(size='ab', counts={})])
def test_masks_that_are_none(mask, tmp_path):
    d = coco(TRAIN); [picture(tmp_path/f'{i}.jpg', i) for i in TRAIN]; d['annotations'][0].update(bbox=None, segmentation=mask); dump(tmp_path/'a.json', d)
    with pytest.raises(DataError, match='is not finite'): load_dataset(tmp_path)


# ---------------------------------------------------------------- sources: files, several, one split
def test_files_as_source_73c(tmp_path):
    ultra(tmp_path/'y'); check(load_dataset(tmp_path/'y'/'data.yaml'), TWO); assert recognise(tmp_path/'y'/'data.yaml')=='yolo'
    put(tmp_path/'custom.yaml', 'path: ./y\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n'); check(load_dataset(tmp_path/'custom.yaml'), TWO)
    put(tmp_path/'conf'/'custom.yaml', 'path: ../y\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n'); check(load_dataset(tmp_path/'conf'/'custom.yaml'), TWO)
    json_set(tmp_path/'c', dict(train='annotations/instances_train.json', val='annotations/instances_val.json'), dict(train='train', val='val'))
    check(load_dataset(tmp_path/'c'/'annotations'/'instances_train.json'), 8)
    json_set(tmp_path/'d', dict(train='export/result.json'), dict(train='images')); check(load_dataset(tmp_path/'d'/'export'/'result.json'), 8)
    put(tmp_path/'a.txt', 'hello')
    with pytest.raises(DataError, match='a file, not a folder'): load_dataset(tmp_path/'a.txt')
    dump(tmp_path/'d'/'b.json', [1])
    with pytest.raises(DataError, match='not a COCO annotation file'): load_dataset(tmp_path/'d'/'b.json')


def test_several_sets_34b(tmp_path):
    a, b = tmp_path/'VOC2007', tmp_path/'VOC2012'; voc(a); voc(a, TEST); voc(b, VAL)
    for root,s,ids in ((a,'trainval',TRAIN), (a,'test',TEST), (b,'trainval',VAL)): voc_list(root/f'ImageSets/Main/{s}.txt', ids)
    data = load_dataset([a, b]); every = data.train+data.valid
    assert {number(r.image) for r in every}=={*TRAIN,*VAL} and {number(r.image) for r in data.split('test')}=={*TEST}
    assert len({r.image_id for rs in data.splits.values() for r in rs})==len(every)+len(TEST); check(data)
    assert 'VOC2007: test 2, trainval 8' in data.notes or 'VOC2007: trainval 8, test 2' in data.notes
    assert [*load_dataset([a, b], only=('test',)).splits]==['test']
    with pytest.raises(DataError, match="no split 'extra'"): load_dataset([a, b], only=('extra',))


def test_several_sets_of_other_formats(tmp_path):
    "Joined by the names of their classes, case and all; a val split of one is val, the other trains"
    voc(tmp_path/'v'); ultra(tmp_path/'y', 'names: [dog, Cat]\n', text=lambda i: yolo(i, ('dog','cat')), train=range(30,34), val=VAL)
    data = load_dataset([tmp_path/'v', str(tmp_path/'y')]); assert data.vocab==('background','cat','dog','Cat')
    assert len(data.train)==12 and len(data.valid)==3 and all([data.vocab[l] for l in r.labels]==['Cat','dog'] for r in data.valid)
    names = {number(r.image): [data.vocab[l] for l in r.labels] for r in data.train}; assert names[0]==['cat','dog'] and names[30]==['Cat','dog']
    put(tmp_path/'v'/'Annotations'/'0.xml', '<annotation>')
    with pytest.raises(DataError, match='0.xml'): load_dataset([tmp_path/'v', tmp_path/'y'])
    assert load_dataset([tmp_path/'v', tmp_path/'y'], 'skip').counts['images']==1


@pytest.mark.parametrize('kind', ['coco','voc','yolo'])
def test_only_the_split_that_is_asked_for_97(kind, tmp_path):
    if kind=='coco': json_set(tmp_path, dict(train='annotations/instances_train2017.json', val='annotations/instances_val2017.json'), dict(train='train2017', val='val2017')); shutil.rmtree(tmp_path/'train2017')
    if kind=='voc':
        for s,ids in dict(train=TRAIN, val=VAL).items(): voc(tmp_path, ids); voc_list(tmp_path/f'ImageSets/Main/{s}.txt', ids)
        put(tmp_path/'Annotations'/'0.xml', '<annotation'); (tmp_path/'JPEGImages'/'1.jpg').unlink()
    if kind=='yolo': ultra(tmp_path); put(tmp_path/'labels/train/0.txt', 'rubbish'); (tmp_path/'images/train/1.jpg').write_bytes(b'')
    with pytest.raises(DataError): load_dataset(tmp_path)
    for name in ('val','Validation'): data = check(load_dataset(tmp_path, only=(name,)), dict(val=len(VAL))); assert not data.notes
    with pytest.raises(DataError, match="no split 'test'; it has train, val"): load_dataset(tmp_path, only=('test',))
    victim = next(p for p in tmp_path.rglob('20.jpg')); victim.write_bytes(b'')
    with pytest.raises(DataError, match='20.jpg'): load_dataset(tmp_path, only=('val',))


def test_only_val_of_a_set_in_one_piece(tmp_path):
    voc(tmp_path); whole = load_dataset(tmp_path); part = load_dataset(tmp_path, only=('val',))
    assert [*part.splits]==['val'] and [r.image for r in part.valid]==[r.image for r in whole.valid]


def test_a_val_picture_is_not_taken_for_train(tmp_path):
    "Both splits call their pictures alike, and train's were not downloaded: they are missing, not val's"
    for s,ids in dict(train=range(3), val=VAL).items():
        dump(tmp_path/'annotations'/f'instances_{s}.json', coco(ids, lambda i, ids=ids: f'frame_{ids.index(i)}.jpg'))
    for k,i in enumerate(VAL): picture(tmp_path/'val'/f'frame_{k}.jpg', i)
    with pytest.raises(DataError, match='no such image'): load_dataset(tmp_path)
    check(load_dataset(tmp_path, only=('val',)), dict(val=len(VAL)))


def test_only_a_test_split_stays_one(tmp_path):
    json_set(tmp_path, dict(test='annotations/instances_Test.json'), dict(test='images')); assert [*load_dataset(tmp_path).splits]==['test']


def test_zero_based_hint_05(tmp_path):
    voc(tmp_path); put(tmp_path/'Annotations'/'0.xml', re.sub('<xmin>[^<]*', '<xmin>0', xml(0, one=0), count=1))
    with pytest.raises(DataError, match='one_based=False'): load_dataset(tmp_path)
    assert any('one_based=False' in n for n in load_dataset(tmp_path, 'fix').notes)
    assert R.looks_zero_based(R.read_voc(tmp_path).split('all')) and not R.looks_zero_based(R.read_voc(tmp_path, one_based=False).split('all'))


@pytest.mark.parametrize('yaml', ['names: [!!int "", dog]', 'names: !!bool maybe', 'names: [!!timestamp x]', 'names: !!python/name:os.system []', 'names: [cat', 'names: {[a]: b}', 'names: {a: {b: c}}', 'names: [{a: b}]', 'names: 7', '- names', 'names: ', 'nc: 2'])
def test_odd_yaml_is_named(yaml, tmp_path):
    ultra(tmp_path, yaml+'\n')
    for policy in R.ON_ERROR:
        with pytest.raises(DataError) as e: load_dataset(tmp_path, policy)
        assert 'data.yaml' in str(e.value)


def test_a_yaml_without_names_beside_a_list_of_classes(tmp_path):
    ultra(tmp_path, 'train: images/train\nval: images/val\nnc: 2\n'); put(tmp_path/'classes.txt', 'cat\ndog\n'); check(load_dataset(tmp_path), TWO)


def test_a_later_format_enters_itself(tmp_path, monkeypatch):
    "What a lesson registers is found, read, and refused beside another; a secondary one gives way with a note"
    find = lambda inv: inv.named('boxes.one')
    read = lambda inv, files, options: R.data_of([R.Entry(f'{i}.jpg', files[0], [dict(name=n, box_px=b) for n,*b in objects(i)]) for i in TRAIN], inv, options)
    monkeypatch.setitem(R.FORMATS, 'one', R.Format('one line', find, read)); put(tmp_path/'boxes.one', 'x'); [picture(tmp_path/'images'/f'{i}.jpg', i) for i in TRAIN]
    check(load_dataset(tmp_path), 8); assert recognise(tmp_path)=='one'
    voc(tmp_path, images='images', labels='xml')
    with pytest.raises(DataError, match='VOC XML .* and one line'): load_dataset(tmp_path)
    monkeypatch.setitem(R.FORMATS, 'one', R.Format('one line', find, read, secondary=True))
    data = load_dataset(tmp_path); check(data, 8); assert any('boxes.one: left unread' in n for n in data.notes)
    monkeypatch.setattr(R, 'UNREAD_FORMATS', [lambda inv: 'via.json is of VIA: export COCO.' if inv.named('via.json') else None])
    put(tmp_path/'via'/'via.json', '{}')
    with pytest.raises(DataError, match='not a data set we know. via.json is of VIA: export COCO. It holds via.json'): load_dataset(tmp_path/'via')
