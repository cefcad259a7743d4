"""A small hub in a thread: as much of huggingface.co as a push and a fetch through the library ask
for. Repositories are kept in memory; every request is written down."""

import base64, hashlib, json, re, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = 'hf_of_tests'


class Repo:
    "Commits, oldest first: (hash, path → bytes); what it demands of visitors"

    def __init__(self, private=False):
        self.commits, self.tags, self.private, self.gated = [], {}, private, False

    def commit(self, files, message='', tag=None):
        whole = {**(self.commits[-1][1] if self.commits else {}), **files}
        said = repr((len(self.commits), message, sorted(whole)))
        self.commits.append((hashlib.sha1(said.encode()).hexdigest(), whole))
        self.tags |= {tag: self.commits[-1][0]} if tag else {}
        return self.commits[-1][0]

    def at(self, revision):
        "(hash, files) of a branch, a tag or a hash; None: there is no such thing"
        if revision == 'main':
            return self.commits[-1] if self.commits else None
        wanted = self.tags.get(revision, revision)
        return next((c for c in self.commits if c[0] == wanted), None)


class Answer(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *words):
        pass

    # ------------------------------------------------------------ what is sent
    def send(self, status=200, body=b'', **headers):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        self.send_response(status)
        noise = {'X-HF-Warning': 'login; log in for more speed'}  # which the library would print
        for k, v in {'Content-Length': len(body), **noise, **headers}.items():
            self.send_header(k.replace('_', '-'), v)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def refuse(self, status, code=None):
        more = {'X-Error-Code': code} if code else {}
        self.send(status, dict(error='long words of the hub'), **more)

    def allowed(self, repo):
        "Whether the visitor may see a repository; else that is said as the hub says it"
        if repo is None or repo.private and not self.is_owner():
            self.refuse(404 if self.is_owner() else 401, 'RepoNotFound')
            return False
        return True

    def is_owner(self):
        return self.headers.get('Authorization') == f'Bearer {TOKEN}'

    # ------------------------------------------------------------ what is asked
    def begin(self):
        self.body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f'{self.command} {path}')
        if self.server.broken:
            self.refuse(self.server.broken)
            return None
        return path

    def do_GET(self):
        if (path := self.begin()) is None:
            return None
        if m := re.fullmatch(r'/api/models/([^/]+/[^/]+)(?:/revision/(.+))?', path):
            return self.info(*m.groups())
        if m := re.fullmatch(r'/([^/]+/[^/]+)/resolve/(.+)/([^/]+)', path):
            return self.file(*m.groups())
        return self.refuse(404)

    do_HEAD = do_GET

    def info(self, name, revision):
        repo = self.server.repos.get(name)
        if not self.allowed(repo):
            return None
        commit = repo.at(revision or 'main')
        if commit is None and (revision or repo.commits):
            return self.refuse(404, 'RevisionNotFound')
        sha, files = commit or ('0' * 40, {})
        return self.send(
            body=dict(
                id=name,
                modelId=name,
                sha=sha,
                private=repo.private,
                gated='manual' if repo.gated else False,
                siblings=[dict(rfilename=f) for f in files],
                tags=[],
                xetEnabled=False,
            )
        )

    def file(self, name, revision, file):
        repo = self.server.repos.get(name)
        if not self.allowed(repo):
            return None
        if (commit := repo.at(revision)) is None:
            return self.refuse(404, 'RevisionNotFound')
        sha, files = commit
        if repo.gated:
            return self.refuse(403, 'GatedRepo')
        if file not in files:
            return self.send(404, X_Error_Code='EntryNotFound', X_Repo_Commit=sha)
        data = files[file]
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        start = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range') or '')
        part = data[int(start[1]) :] if start else data
        return self.send(206 if start else 200, part, X_Repo_Commit=sha, ETag=etag)

    def do_POST(self):
        if (path := self.begin()) is None:
            return None
        if path == '/api/validate-yaml':
            return self.send(body=dict(errors=[], warnings=[]))
        if not self.is_owner():
            return self.refuse(401)
        said = json.loads(self.body) if 'ndjson' not in self.headers['Content-Type'] else None
        if path == '/api/repos/create':
            return self.create(said)
        if m := re.fullmatch(r'/api/models/([^/]+/[^/]+)/(preupload|commit)/main', path):
            return getattr(self, m[2])(m[1], said)
        if m := re.fullmatch(r'/([^/]+/[^/]+)\.git/info/lfs/objects/batch', path):
            return self.batch(said)
        return self.refuse(404)

    def create(self, said):
        name = f'{said.get("organization") or "me"}/{said["name"]}'
        if not name.startswith('me/'):
            return self.refuse(403)
        url = f'{self.server.address}/{name}'
        if name in self.server.repos:
            return self.send(409, dict(error='You already created this model repo', url=url))
        private = said.get('visibility') == 'private' or bool(said.get('private'))
        self.server.repos[name] = Repo(private)
        self.server.repos[name].commit({'.gitattributes': b''}, 'initial commit')
        return self.send(body=dict(url=url, id=name, name=name))

    def preupload(self, name, said):
        large = [f['path'].endswith('.safetensors') for f in said['files']]
        modes = [
            dict(path=f['path'], uploadMode='lfs' if x else 'regular', shouldIgnore=False)
            for f, x in zip(said['files'], large, strict=True)
        ]
        self.send(body=dict(files=modes))

    def batch(self, said):
        put = lambda oid: dict(upload=dict(href=f'{self.server.address}/lfs/{oid}'))
        objects = [dict(o, actions=put(o['oid'])) for o in said['objects']]
        self.send(body=dict(transfer='basic', objects=objects))

    def do_PUT(self):
        path = self.begin()
        self.server.large[path.rpartition('/')[2]] = self.body
        self.send()

    def commit(self, name, said):
        files, message = {}, ''
        for line in map(json.loads, self.body.splitlines()):
            kind, v = line['key'], line['value']
            if kind == 'header':
                message = v['summary']
            elif kind == 'file':
                files[v['path']] = base64.b64decode(v['content'])
            elif kind == 'lfsFile':
                files[v['path']] = self.server.large[v['oid']]
        sha = self.server.repos[name].commit(files, message)
        self.server.messages.append(message)
        url = f'{self.server.address}/{name}/commit/{sha}'
        self.send(body=dict(success=True, commitOid=sha, commitUrl=url))


class Hub(ThreadingHTTPServer):
    "with Hub() as hub: it serves at `hub.address`"

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Answer)
        self.address = f'http://127.0.0.1:{self.server_port}'
        self.repos, self.large, self.asked, self.messages = {}, {}, [], []
        self.broken = 0  # a status with which everything is answered

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *e):
        self.shutdown()
        self.server_close()
