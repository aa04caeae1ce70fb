package daemon

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settleTime is how long nothing must happen to a file before it is read:
	// an editor, or a slow copy, is at work until then.
	settleTime = 500 * time.Millisecond
	// settlePatience is after which it is read though it never comes to rest.
	settlePatience = 10 * time.Second
	// lookInterval is how often it is read without any notice, which some file
	// systems do not give.
	lookInterval = 30 * time.Second
	// calmTime is how long notices are left in the kernel's queue, which keeps
	// one of many that are alike, after one about a neighbour: the audit log may
	// stand beside the configuration. For wakeTime after it all are read.
	calmTime = 100 * time.Millisecond
	wakeTime = 5 * time.Millisecond
)

type watchConfig struct {
	Logger *slog.Logger
	// Settle, Patience and Interval are told at their constants.
	Settle, Patience, Interval time.Duration
}

// watch tells when files may have changed. It watches folders, since a file
// that is replaced is another file: the folder of the file, and of every link on
// the way to it, so that a ConfigMap's swap of ..data is seen, and a release
// that a link is turned to. What a notice misses (NFS, a folder above that was
// moved, no watches left) is seen at the interval. One goroutine uses it.
type watch struct {
	cfg   watchConfig
	inner *fsnotify.Watcher // nil where the kernel gives none
	files []string
	// names are what events have to be about.
	names map[string]bool
	// dirs are the watched folders, with what stood there at the time.
	dirs map[string]os.FileInfo
	// told holds the folders that could not be watched.
	told map[string]bool

	tick    *time.Ticker
	settled *time.Timer
	first   time.Time // of the events that settle; zero while there are none

	calm    *time.Timer
	resting bool
	woken   time.Time
}

func newWatch(cfg watchConfig) *watch {
	w := &watch{cfg: cfg, dirs: map[string]os.FileInfo{}, told: map[string]bool{}, tick: time.NewTicker(cfg.Interval), settled: time.NewTimer(0), calm: time.NewTimer(0)}
	w.settled.Stop()
	w.calm.Stop()
	var err error
	if w.inner, err = fsnotify.NewWatcher(); err != nil {
		cfg.Logger.Warn("changes of the configuration are not noticed at once", "looked_at_every", cfg.Interval.String(), "error", err)
	}
	return w
}

func (w *watch) close() {
	w.tick.Stop()
	w.settled.Stop()
	w.calm.Stop()
	if w.inner != nil {
		_ = w.inner.Close() // nothing was written
	}
}

// follow sets the files; none is a rest. What has been replaced since the last
// call is watched anew, and looked at: so it comes behind whatever was told.
func (w *watch) follow(files []string) {
	w.files, w.names = files, map[string]bool{}
	want := map[string]bool{}
	for _, file := range files {
		for _, name := range chain(file) {
			w.names[name] = true
			want[filepath.Dir(name)] = true
		}
	}
	if w.inner == nil {
		return
	}
	for dir := range w.dirs {
		if !want[dir] {
			w.drop(dir)
		}
	}
	for dir := range want {
		w.names[dir] = true // it may be removed itself
		info, err := os.Stat(dir)
		if err != nil {
			w.drop(dir)
			continue
		}
		if old := w.dirs[dir]; old != nil && os.SameFile(old, info) && slices.Contains(w.inner.WatchList(), dir) {
			continue
		}
		w.drop(dir)
		if err := w.inner.Add(dir); err != nil {
			if !w.told[dir] {
				w.cfg.Logger.Warn("changes in this folder are not noticed at once", "folder", dir, "looked_at_every", w.cfg.Interval.String(), "error", err)
			}
			w.told[dir] = true
			continue
		}
		w.dirs[dir] = info
		delete(w.told, dir)
		w.event(time.Now()) // what happened before is not told
	}
}

func (w *watch) drop(dir string) {
	if w.dirs[dir] != nil {
		_ = w.inner.Remove(dir) // it is gone where the folder is
		delete(w.dirs, dir)
	}
}

// events is nil, which never is ready, where the kernel gives no notices, and
// while they rest.
func (w *watch) events() <-chan fsnotify.Event {
	if w.inner == nil || w.resting {
		return nil
	}
	return w.inner.Events
}

func (w *watch) errors() <-chan error {
	if w.inner == nil {
		return nil
	}
	return w.inner.Errors
}

// notice starts to wait for rest where an event is about the files.
func (w *watch) notice(ev fsnotify.Event) bool {
	ours, now := w.names[ev.Name], time.Now()
	switch {
	case ours:
		w.event(now)
	case now.Sub(w.woken) > wakeTime:
		w.resting = true
		w.calm.Reset(calmTime)
	}
	return ours
}

// wake ends the rest of the notices.
func (w *watch) wake() { w.resting, w.woken = false, time.Now() }

// lost is for notices that the kernel had no room for. After any other error
// there are no more of them, and the interval is left.
func (w *watch) lost(err error) {
	w.cfg.Logger.Warn("notices of changes were lost", "looked_at_every", w.cfg.Interval.String(), "error", err)
	w.event(time.Now())
	if !errors.Is(err, fsnotify.ErrEventOverflow) {
		_ = w.inner.Close()
		w.inner = nil
		clear(w.dirs)
	}
}

// rested begins anew after the files have come to rest.
func (w *watch) rested() { w.first = time.Time{} }

func (w *watch) event(now time.Time) {
	if w.first.IsZero() {
		w.first = now
	}
	w.settled.Reset(max(0, min(w.cfg.Settle, w.cfg.Patience-now.Sub(w.first))))
}

// chain lists what a path leads through: every link on the way, and the file.
// Where something is missing, that is the last.
func chain(path string) []string {
	const links = 40 // as the kernel has it
	path, err := filepath.Abs(path)
	if err != nil {
		return nil
	}
	var out []string
	at, rest, seen := "/", parts(path), 0
	for len(rest) > 0 && seen <= links {
		next := filepath.Join(at, rest[0])
		rest = rest[1:]
		info, err := os.Lstat(next)
		switch {
		case err != nil:
			return append(out, next)
		case info.Mode()&os.ModeSymlink != 0:
			out = append(out, next)
			target, err := os.Readlink(next)
			if err != nil {
				return out
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(parts(target), rest...)
			seen++
		case len(rest) == 0:
			out = append(out, next)
		default:
			at = next
		}
	}
	return out
}

// parts are the elements of a path.
func parts(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" || s == "." })
}
