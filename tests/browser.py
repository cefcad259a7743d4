"A headless Chromium that tests can steer: DevTools' protocol over a websocket, nothing else"

import base64, json, shutil, subprocess, tempfile, time, urllib.request
from pathlib import Path

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
OPTIONS = """--headless=new --no-sandbox --no-first-run --disable-gpu --disable-quic
--disable-background-networking --disable-component-update --disable-sync --disable-extensions
--disable-dev-shm-usage --disable-default-apps --remote-debugging-port=0 --hide-scrollbars
--remote-allow-origins=* --use-fake-device-for-media-stream --use-fake-ui-for-media-stream
--autoplay-policy=no-user-gesture-required""".split()


def find_chromium():
    "Path of the program; None where there is none"
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    "One page of a browser; `requests` are the addresses it has asked for, `errors` what went wrong"

    def __init__(self, size=(1200, 900), mobile=False):
        import websocket

        self.folder = Path(tempfile.mkdtemp(prefix='ssd_tutorial_browser_'))
        self.downloads = self.folder / 'downloads'
        self.downloads.mkdir()
        self.process = subprocess.Popen(
            [find_chromium(), *OPTIONS, f'--user-data-dir={self.folder / "profile"}']
            + ['--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1', 'about:blank'],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.n, self.requests, self.errors, self.load = 0, [], [], 0
        self.socket = websocket.create_connection(self._target(), timeout=60)
        for domain in ('Page', 'Runtime', 'Network', 'Log', 'DOM'):
            self.call(f'{domain}.enable')
        self.call('Browser.setDownloadBehavior', behavior='allow', downloadPath=str(self.downloads))
        self.resize(*size, mobile)

    def _target(self):
        port = self.folder / 'profile' / 'DevToolsActivePort'
        self.wait(lambda: port.is_file() and port.read_text().count('\n'), 'the browser', 60)
        address = f'http://127.0.0.1:{port.read_text().split()[0]}/json'
        with urllib.request.urlopen(address, timeout=30) as r:
            pages = [t for t in json.load(r) if t['type'] == 'page']
        return pages[0]['webSocketDebuggerUrl']

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _note(self, message):
        method, p = message.get('method'), message.get('params', {})
        if method == 'Network.requestWillBeSent':
            self.requests.append((p['request']['method'], p['request']['url']))
        elif method == 'Runtime.exceptionThrown':
            self.errors.append(p['exceptionDetails'].get('exception', p).get('description', str(p)))
        elif method == 'Log.entryAdded' and p['entry']['level'] == 'error':
            self.errors.append(f'{p["entry"]["text"]} {p["entry"].get("url", "")}')
        elif method == 'Page.loadEventFired':
            self.load += 1

    def call(self, method, **params):
        "One command, and what it returns"
        self.n += 1
        self.socket.send(json.dumps(dict(id=self.n, method=method, params=params)))
        while True:
            message = json.loads(self.socket.recv())
            self._note(message)
            if message.get('id') == self.n:
                assert 'error' not in message, (method, message['error'])
                return message['result']

    def wait(self, true, what, seconds=60):
        "Until something is true; what was true"
        end = time.time() + seconds
        while time.time() < end:
            if found := true():
                return found
            time.sleep(0.05)
        raise AssertionError(f'waited {seconds} s for {what}; {getattr(self, "errors", "")}')

    def js(self, code):
        "The value of an expression in the page"
        r = self.call(
            'Runtime.evaluate', expression=code, returnByValue=True, awaitPromise=True,
            userGesture=True,
        )  # fmt: skip
        assert 'exceptionDetails' not in r, r['exceptionDetails']
        return r['result'].get('value')

    def until(self, code, seconds=60):
        "Until an expression is true in the page; its value"
        return self.wait(lambda: self.js(code), code, seconds)

    def open(self, address):
        seen = self.load
        self.call('Page.navigate', url=address)
        self.wait(lambda: self.js('1') and self.load > seen, f'{address} to load')

    def resize(self, width, height, mobile=False):
        self.call(
            'Emulation.setDeviceMetricsOverride', width=width, height=height,
            deviceScaleFactor=1, mobile=mobile,
        )  # fmt: skip

    def upload(self, selector, path):
        "Choose a file, as a reader does in the dialog"
        root = self.call('DOM.getDocument')['root']['nodeId']
        node = self.call('DOM.querySelector', nodeId=root, selector=selector)['nodeId']
        self.call('DOM.setFileInputFiles', files=[str(path)], nodeId=node)

    def key(self, key, code=0, text='', modifiers=0):
        for kind in ('keyDown', 'keyUp'):
            self.call(
                'Input.dispatchKeyEvent', type=kind, key=key, code=key, text=text,
                windowsVirtualKeyCode=code, modifiers=modifiers,
            )  # fmt: skip

    def mouse(self, x, y, click=False):
        kinds = ['mouseMoved'] + ['mousePressed', 'mouseReleased'] * click
        for kind in kinds:
            button = {} if kind == 'mouseMoved' else dict(button='left', clickCount=1)
            self.call('Input.dispatchMouseEvent', type=kind, x=x, y=y, **button)

    def screenshot(self, path=None, whole=False):
        "PNG of the window, or of the whole page"
        data = self.call('Page.captureScreenshot', captureBeyondViewport=whole)['data']
        data = base64.b64decode(data)
        if path:
            Path(path).write_bytes(data)
        return data
