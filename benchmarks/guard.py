"""What a process touches while it reads a file: other files, programs, the network, memory.

Python's own doings are told by its audit events, and what must not be is refused as well. A decoder
in C reads past them; for these there are decoys beside the input that nobody has any business with:
files that the kernel tells about when they are opened, and a port that is listened at.
"""

import ctypes, os, re, select, socket, struct, sys
from pathlib import Path

PROGRAMS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile")
PROGRAMS += ("os.forkpty", "pty.spawn", "subprocess.Popen", "webbrowser.open")
NETWORK = ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo")
NETWORK += ("socket.gethostbyname", "urllib.Request", "http.client.connect", "ftplib.connect")
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod")
CHANGES += ("os.truncate", "shutil.rmtree", "shutil.move", "shutil.copyfile", "os.chown")
PICKLES = ("pickle.find_class",)
CODE_FROM = [sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parent.parent)]
SYSTEM = ("/usr/lib", "/usr/share", "/usr/local", "/lib", "/proc", "/sys", "/dev", "/etc/ssl")
SYSTEM += ("/etc/localtime", "/etc/mime.types", "/etc/fonts", "/etc/ld.so.cache", "/opt")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
IN_OPEN, IN_CREATE, IN_MODIFY, IN_DELETE = 0x20, 0x100, 0x2, 0x200


def _place(args):
    "Path of an event, and the open folder that it counts from, where the last argument is one"
    at = args[-1] if len(args) > 1 and type(args[-1]) is int and args[-1] >= 0 else None
    return args[0], at


class Refused(RuntimeError):
    "What code that reads a file wanted to do, and was kept from"


class Guard:
    "Watches this process, which may write in one folder, and read there and where programs lie"

    def __init__(self, folder):
        self.folder, self.seen, self.on = os.path.realpath(folder), [], False
        self.decoys = Path(folder) / "decoys"
        self.decoys.mkdir(parents=True, exist_ok=True)
        for name in ("weights.bin", "list.txt", "evil_module.py", "photo.jpg", "film.ts"):
            (self.decoys / name).write_bytes(b"secret " * 64)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.inotify = None
        self.readable = (self.folder, *map(os.path.realpath, CODE_FROM), *SYSTEM)
        sys.addaudithook(self._hook)

    def watch(self):
        "From now on whoever opens a decoy is noticed; call it when all decoys are there"
        if sys.platform != "linux":
            return
        libc = ctypes.CDLL(None, use_errno=True)
        self.inotify = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        wanted = IN_OPEN | IN_CREATE | IN_MODIFY | IN_DELETE
        for p in (self.decoys, *self.decoys.iterdir()):
            libc.inotify_add_watch(self.inotify, os.fsencode(p), wanted)

    def _hook(self, event, args):
        if not self.on:
            return
        what = self._judge(event, args)
        if what:
            self.seen.append(what[:200])
            raise Refused(what)

    def _judge(self, event, args):
        if event == "open":
            return self._judge_open(*args)
        if event in PROGRAMS:
            return f"a program: {event} {args[:2]!r}"
        if event in NETWORK:
            return f"the network: {event} {args[1:3]!r}"
        if event in PICKLES:
            return f"a pickle: {args!r}"
        if event in CHANGES and not self._inside(*_place(args)):
            return f"a change: {event} {args[0]!r}"
        if event == "import" and args[0] == "evil_module":
            return "a module that a file names"

    def _judge_open(self, path, mode, flags):
        if isinstance(path, int) or path is None:
            return
        real = os.path.realpath(os.fsdecode(path))
        if (flags or 0) & WRITES and real != os.devnull:
            if not self._inside(real) and "__pycache__" not in real:
                return f"a file written: {real}"
        elif (
            real not in self.also
            and not real.startswith(self.readable)
            or real.startswith(str(self.decoys))
        ):
            return f"a file read: {real}"

    def _inside(self, path, at=None):
        if isinstance(path, int):
            return True
        path = os.fsdecode(path)
        if at is not None and not os.path.isabs(path) and sys.platform == "linux":
            path = f"{os.readlink(f'/proc/self/fd/{at}')}/{path}"
        return os.path.realpath(path).startswith(self.folder)

    def begin(self, also=()):
        "From now on; `also`: files elsewhere that may be read"
        self.also = also
        self._decoys_touched(), self._called()
        self.before = reset_peak()
        self.seen, self.on = [], True

    def end(self):
        "(what was touched, megabytes that were needed at most)"
        self.on = False
        more = self._decoys_touched() + ["the network: a port was called"] * self._called()
        return self.seen + more, (peak_kb() - self.before) / 1024

    def _decoys_touched(self):
        "What inotify has to say since it was last asked"
        out = []
        while self.inotify and select.select([self.inotify], [], [], 0)[0]:
            b, at = os.read(self.inotify, 65536), 0
            while at < len(b):
                _, mask, _, n = struct.unpack_from("iIII", b, at)
                name = b[at + 16 : at + 16 + n].rstrip(b"\0").decode()
                at += 16 + n
                if not mask & 0x40000000:  # a folder that is looked into
                    out.append(f"a decoy: {name or 'opened'}")
        return out

    def _called(self):
        n = 0
        while select.select([self.listener], [], [], 0)[0]:
            self.listener.accept()[0].close()
            n += 1
        return n


def _status(key):
    return int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def peak_kb():
    return _status("VmHWM") if sys.platform == "linux" else 0


def reset_peak():
    "Begin to count the largest memory anew; returns what is held now, kB"
    if sys.platform != "linux":
        return 0
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # then the peak is that of the whole process
    return _status("VmRSS")


def limit_memory(more_gib):
    "No more than so much address space beside what is taken"
    if sys.platform == "linux":
        import resource

        top = _status("VmSize") * 1024 + int(more_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (top, resource.RLIM_INFINITY))
