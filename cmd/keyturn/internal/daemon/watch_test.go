package daemon

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
)

// looks turns the watch until it is time to look, and reports whether that came.
func looks(w *watch, limit time.Duration, files ...string) bool {
	deadline := time.After(limit)
	for {
		w.follow(files)
		select {
		case ev := <-w.events():
			w.notice(ev)
		case <-w.calm.C:
			w.wake()
		case err := <-w.errors():
			w.lost(err)
		case <-w.settled.C:
			w.rested()
			return true
		case <-w.tick.C:
			return true
		case <-deadline:
			return false
		}
	}
}

// newTestWatch follows a file and has looked at it once.
func newTestWatch(t *testing.T, file string) *watch {
	t.Helper()
	w := newWatch(watchConfig{Logger: slog.New(slog.DiscardHandler), Settle: 20 * time.Millisecond, Patience: time.Second, Interval: time.Hour})
	t.Cleanup(w.close)
	if !looks(w, 10*time.Second, file) {
		t.Fatal("no first look")
	}
	return w
}

// configMap makes a folder as the kubelet does: the file is a link through
// ..data, and a new version is another folder to which that is turned.
func configMap(t *testing.T, dir, version, text string) {
	t.Helper()
	must(t, errors.Join(
		os.MkdirAll(filepath.Join(dir, version), 0o755),
		os.WriteFile(filepath.Join(dir, version, "keyturn.yaml"), []byte(text), 0o600),
		os.Symlink(version, filepath.Join(dir, "..data_tmp")),
		os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))))
}

// TestWatchSees each way in which a file comes to hold something else.
func TestWatchSees(t *testing.T) {
	for name, steps := range map[string][]func(t *testing.T, dir, file string){
		"written": {func(t *testing.T, _, file string) { must(t, os.WriteFile(file, []byte("b"), 0o600)) }},
		"renamed over, twice": {
			func(t *testing.T, _, file string) { replaceFile(t, file, "b") },
			func(t *testing.T, _, file string) { replaceFile(t, file, "c") },
		},
		"removed and made again": {
			func(t *testing.T, _, file string) { must(t, os.Remove(file)) },
			func(t *testing.T, _, file string) { must(t, os.WriteFile(file, []byte("b"), 0o600)) },
		},
		"mode": {func(t *testing.T, _, file string) { must(t, os.Chmod(file, 0o640)) }},
		"folder renamed and made again": {
			func(t *testing.T, dir, _ string) { must(t, os.Rename(dir, dir+".old")) },
			func(t *testing.T, dir, _ string) { must(t, os.Mkdir(dir, 0o755)) },
			func(t *testing.T, _, file string) { must(t, os.WriteFile(file, []byte("b"), 0o600)) },
		},
		"folder exchanged": {
			func(t *testing.T, dir, _ string) {
				must(t, errors.Join(os.Mkdir(dir+".new", 0o755), os.WriteFile(filepath.Join(dir+".new", "keyturn.yaml"), []byte("b"), 0o600),
					os.Rename(dir, dir+".old"), os.Rename(dir+".new", dir)))
			},
			func(t *testing.T, _, file string) { replaceFile(t, file, "c") },
		},
		"folder removed and made again": {
			func(t *testing.T, dir, _ string) { must(t, os.RemoveAll(dir)) },
			func(t *testing.T, dir, file string) {
				must(t, errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(file, []byte("b"), 0o600)))
			},
			func(t *testing.T, _, file string) { replaceFile(t, file, "c") },
		},
		"ConfigMap, three times": {
			func(t *testing.T, dir, file string) {
				configMap(t, dir, "..1", "b")
				must(t, errors.Join(os.Remove(file), os.Symlink("..data/keyturn.yaml", file)))
			},
			func(t *testing.T, dir, _ string) {
				configMap(t, dir, "..2", "c")
				must(t, os.RemoveAll(filepath.Join(dir, "..1")))
			},
			func(t *testing.T, dir, _ string) { configMap(t, dir, "..3", "d") },
		},
		"link into another folder": {
			func(t *testing.T, dir, file string) {
				must(t, errors.Join(os.MkdirAll(filepath.Join(dir, "..", "releases", "1"), 0o755), os.WriteFile(filepath.Join(dir, "..", "releases", "1", "x.yaml"), nil, 0o600),
					os.Remove(file), os.Symlink("../releases/1/x.yaml", file)))
			},
			func(t *testing.T, dir, _ string) {
				must(t, os.WriteFile(filepath.Join(dir, "..", "releases", "1", "x.yaml"), []byte("b"), 0o600))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "etc")
			file := filepath.Join(dir, "keyturn.yaml")
			must(t, errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(file, []byte("a"), 0o600)))
			w := newTestWatch(t, file)
			for i, step := range steps {
				step(t, dir, file)
				if !looks(w, 10*time.Second, file) {
					t.Fatalf("step %d was not seen", i)
				}
				for looks(w, 200*time.Millisecond, file) { // what follows from the same step
				}
			}
		})
	}
}

func replaceFile(t *testing.T, file, text string) {
	t.Helper()
	must(t, errors.Join(os.WriteFile(file+".new", []byte(text), 0o600), os.Rename(file+".new", file)))
}

// A neighbour's changes are no reason to look.
func TestWatchHeedsItsFilesOnly(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "keyturn.yaml")
	must(t, os.WriteFile(file, nil, 0o600))
	w := newTestWatch(t, file)
	must(t, os.WriteFile(filepath.Join(dir, "other.yaml"), []byte("x"), 0o600))
	if looks(w, 300*time.Millisecond, file) {
		t.Error("looked for another file")
	}
	if w.follow(nil); len(w.dirs) > 0 {
		t.Errorf("watches %v for no file", w.dirs)
	}
	must(t, os.WriteFile(file, []byte("x"), 0o600))
	if looks(w, 300*time.Millisecond) {
		t.Error("looked for no file")
	}
}

// TestWatchBesideALog: a log in the same folder, which is written all the time,
// costs next to nothing, and hides nothing.
func TestWatchBesideALog(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "keyturn.yaml")
	must(t, os.WriteFile(file, nil, 0o600))
	log, err := os.Create(filepath.Join(dir, "audit.jsonl"))
	must(t, err)
	defer log.Close()
	w := newTestWatch(t, file)
	heard, lines, end := 0, 0, time.Now().Add(time.Second)
	for time.Now().Before(end) {
		_, err := log.WriteString("a line\n")
		must(t, err)
		lines++
		select {
		case ev := <-w.events():
			w.notice(ev)
			heard++
		case <-w.calm.C:
			w.wake()
		default:
		}
	}
	if lines < 1000 || heard > 500+lines/100 {
		t.Errorf("%d notices of %d lines", heard, lines)
	}
	replaceFile(t, file, "b")
	if !looks(w, 10*time.Second, file) {
		t.Error("a change beside a log was not seen")
	}
}

// A file that is written without a pause is looked at all the same.
func TestWatchLosesPatience(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keyturn.yaml")
	must(t, os.WriteFile(file, nil, 0o600))
	w := newTestWatch(t, file)
	w.cfg.Settle = time.Hour
	w.cfg.Patience = 50 * time.Millisecond
	w.event(time.Now().Add(-time.Minute))
	w.event(time.Now())
	if !looks(w, 10*time.Second, file) {
		t.Error("no look")
	}
}

// Lost notices are made up for by a look; when there are none any more, it goes
// on without.
func TestWatchLosesNotices(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keyturn.yaml")
	must(t, os.WriteFile(file, nil, 0o600))
	w := newTestWatch(t, file)
	w.lost(fsnotify.ErrEventOverflow)
	if !looks(w, 10*time.Second, file) || w.inner == nil {
		t.Error("no look after an overflow, or no watch")
	}
	w.lost(errors.New("read: bad file descriptor"))
	if !looks(w, 10*time.Second, file) || w.inner != nil {
		t.Error("no look after an error, or a watch that is none")
	}
	w.follow([]string{file})
	w.tick.Reset(time.Millisecond)
	if !looks(w, 10*time.Second, file) {
		t.Error("no look at the interval")
	}
}

// Without notices the interval is left.
func TestWatchWithoutNotices(t *testing.T) {
	w := &watch{cfg: watchConfig{Logger: slog.New(slog.DiscardHandler)}, tick: time.NewTicker(time.Millisecond), settled: time.NewTimer(time.Hour), calm: time.NewTimer(time.Hour)}
	defer w.close()
	if !looks(w, 10*time.Second, "/nowhere/keyturn.yaml") {
		t.Error("no look")
	}
}

func TestChain(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	at := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	must(t, errors.Join(os.MkdirAll(at("a", "v1"), 0o755), os.WriteFile(at("a", "v1", "f"), nil, 0o600), os.WriteFile(at("a", "plain"), nil, 0o600),
		os.Symlink("v1", at("a", "data")), os.Symlink("data/f", at("a", "f")), os.Symlink(at("a"), at("b")), os.Symlink("../a/f", at("a", "up")),
		os.Symlink("loop", at("loop")), os.Symlink("gone", at("dangling"))))
	for path, want := range map[string][]string{
		at("a", "plain"):          {at("a", "plain")},
		at("a", "f"):              {at("a", "f"), at("a", "data"), at("a", "v1", "f")},
		at("b", "f"):              {at("b"), at("a", "f"), at("a", "data"), at("a", "v1", "f")},
		at("a", "up"):             {at("a", "up"), at("a", "f"), at("a", "data"), at("a", "v1", "f")},
		at("dangling"):            {at("dangling"), at("gone")},
		at("missing", "f"):        {at("missing")},
		at("a", "missing"):        {at("a", "missing")},
		at("a", ".", "..", "b/f"): {at("b"), at("a", "f"), at("a", "data"), at("a", "v1", "f")},
	} {
		if diff := cmp.Diff(want, chain(path)); diff != "" {
			t.Errorf("chain(%s) (-want +got):\n%s", path, diff)
		}
	}
	if got := len(chain(at("loop"))); got < 2 || got > 50 {
		t.Errorf("a loop of links has %d", got)
	}
}
