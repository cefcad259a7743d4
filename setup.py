"Reads settings.ini, the one place for version, owner and dependencies"

from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=['='])
config.read(here / 'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
# where a package index shows it there are no files beside it
raw = cfg['git_url'].replace('github.com', 'raw.githubusercontent.com')
readme = (here / 'README.md').read_text(encoding='utf-8')
readme = readme.replace(
    '](nbs/images/', f'({raw}/{cfg["branch"]}/nbs/images/'.replace('(', '](', 1)
)
extras = {
    k.removesuffix('_requirements'): v.split()
    for k, v in cfg.items()
    if k.endswith('_requirements')
}

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    keywords=cfg['keywords'],
    url=cfg['git_url'],
    author=cfg['author'],
    author_email=cfg['author_email'],
    license='Apache-2.0',
    long_description=readme,
    long_description_content_type='text/markdown',
    packages=find_packages(include=[cfg['lib_path'], f"{cfg['lib_path']}.*"]),
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg['requirements'].split(),
    extras_require=extras,
    entry_points=dict(
        console_scripts=cfg['console_scripts'].split(),
        nbdev=[f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"],
    ),
    package_data={cfg['lib_path']: ['*.json', '*.css', '*.html', 'weights/*']},
    include_package_data=True,
    zip_safe=False,
    classifiers=[
        'Intended Audience :: Education',
        'Programming Language :: Python :: 3',
        'License :: OSI Approved :: Apache Software License',
    ],
)
