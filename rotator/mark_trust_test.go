package rotator_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/rotator"
)

const markFile = "main.manifest.json"

// foreign gives a file away; only root can.
func foreign(path string) error {
	if os.Geteuid() != 0 {
		return os.Chmod(path, 0o777) // at least as bad
	}
	return os.Chown(path, 1234, 0)
}

// TestMarkOfOthers: what somebody else could have written is not trusted, and
// nothing that stands at its name makes a start hang.
func TestMarkOfOthers(t *testing.T) {
	var doc []byte
	synctest.Test(t, func(t *testing.T) {
		w, dir := newWorld(t), t.TempDir()
		r := w.start(in(dir))
		sleep(20 * time.Minute)
		r.stop()
		doc = w.doc
	})
	for name, tc := range map[string]struct {
		damage func(dir, file string) error
		want   string // "" is fine
	}{
		"as it should be":                 {func(string, string) error { return nil }, ""},
		"everybody writes the directory":  {func(dir, _ string) error { return os.Chmod(dir, 0o707) }, "chmod go-w"},
		"a group writes the directory":    {func(dir, _ string) error { return ofGroup(dir, 0o770) }, "lets"},
		"everybody writes a sticky one":   {func(dir, _ string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, "chmod go-w"},
		"the directory is somebody's":     {func(dir, _ string) error { return foreign(dir) }, "state_dir"},
		"the file is somebody's":          {func(_, file string) error { return foreign(file) }, "after a look at who wrote it"},
		"everybody writes the file":       {func(_, file string) error { return os.Chmod(file, 0o602) }, "chmod go-w"},
		"a group writes the file":         {func(_, file string) error { return ofGroup(file, 0o660) }, "lets"},
		"others may read the file":        {func(_, file string) error { return os.Chmod(file, 0o644) }, ""},
		"others may read the directory":   {func(dir, _ string) error { return os.Chmod(dir, 0o755) }, ""},
		"a link":                          {relink, "a symbolic link"},
		"a FIFO":                          {refifo, "a FIFO"},
		"an empty directory of everybody": {func(dir, file string) error { os.Remove(file); return os.Chmod(dir, 0o777) }, "chmod go-w"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, markFile)
			if err := os.WriteFile(file, doc, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := tc.damage(dir, file); err != nil {
				t.Fatal(err)
			}
			_, err := newWorld(t).try(in(dir))
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("New = %v, want %q", err, tc.want)
			}
			if err != nil && !strings.Contains(err.Error(), dir) {
				t.Errorf("%q does not name the place", err)
			}
		})
	}
}

// ofGroup makes it writable by a group that is not root's.
func ofGroup(path string, mode os.FileMode) error {
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 0, 1234); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

func relink(dir, file string) error {
	if err := os.Rename(file, filepath.Join(dir, "else")); err != nil {
		return err
	}
	return os.Symlink("else", file)
}

func refifo(_, file string) error {
	if err := os.Remove(file); err != nil {
		return err
	}
	return syscall.Mkfifo(file, 0o600)
}

// recordAll takes what is handed on, also twice the same generation.
func recordAll(c *rotator.Config) {
	r := c.Store.(*replica)
	c.Accept = func(_ string, s *keyring.Snapshot) {
		r.rec.Lock()
		defer r.rec.Unlock()
		r.accepted = append(r.accepted, s)
	}
}

func (r *replica) handedOn() []*keyring.Snapshot {
	r.rec.Lock()
	defer r.rec.Unlock()
	return slices.Clone(r.accepted)
}

// TestMarkThatDiffers: under one generation and write_id the store counts, not
// the file, and an alarm says that somebody changed it.
func TestMarkThatDiffers(t *testing.T) {
	for _, clockFault := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w, dir := newWorld(t), t.TempDir()
			r := w.start(in(dir))
			sleep(20 * time.Minute)
			r.stop()
			want := w.manifest()
			forged := changed(t, w.doc, func(s *keyring.Snapshot) {
				s.Config.URL = "https://evil.example.com"
				if clockFault {
					s.Lease = s.Lease.Add(1000 * time.Hour)
				}
			})
			if err := os.WriteFile(filepath.Join(dir, markFile), forged, 0o600); err != nil {
				t.Fatal(err)
			}
			w.change(func() { w.down = keyring.ErrUnavailable })
			r = w.start(in(dir), recordAll)
			synctest.Wait()
			if n := len(r.handedOn()); (n == 0) != clockFault {
				t.Fatalf("with the store down %d snapshots are handed on (lease beyond reason: %v)", n, clockFault)
			}
			if s := r.rot.Status("main").Snapshot; (s == nil) != clockFault {
				t.Errorf("with the store down it goes by %+v", s)
			}
			w.change(func() { w.down = nil })
			sleep(15 * time.Second)
			if got := r.rot.Alarms(); len(got) != 1 || got[0].Code != "mark_differs" || !strings.Contains(got[0].Message, dir) {
				t.Errorf("alarms %+v", got)
			}
			fromStore := slices.ContainsFunc(r.handedOn(), func(s *keyring.Snapshot) bool {
				return s.Generation == want.Generation && s.Config.URL == want.Config.URL
			})
			if !fromStore {
				t.Error("what the store holds under that generation was not handed on")
			}
			if s := r.rot.Status("main").Snapshot; s.Config.URL != want.Config.URL {
				t.Errorf("it goes by %s", s.Config.URL)
			}
			if doc, err := os.ReadFile(filepath.Join(dir, markFile)); err != nil || string(doc) != string(w.keep().doc) {
				t.Errorf("the mark is not the store's manifest: %v\n%s", err, doc)
			}
			sleep(time.Hour)
			w.wantWhole()
			if got := r.alarms(); !slices.Equal(got, []string{"mark_differs"}) {
				t.Errorf("later: alarms %v", got)
			}
			r.stop()
			r = w.start(in(dir))
			sleep(time.Minute)
			if got := r.alarms(); got != nil {
				t.Errorf("after a restart: alarms %v", got)
			}
			r.stop()
		})
	}
}

// TestMarkOfAClockFault: it is not served, and still keeps the replica from
// going back.
func TestMarkOfAClockFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, dir := newWorld(t), t.TempDir()
		r := w.start(in(dir))
		sleep(20 * time.Minute)
		older := w.keep()
		sleep(50 * time.Minute)
		r.stop()
		ahead := changed(t, w.doc, func(s *keyring.Snapshot) { s.Lease = s.Lease.Add(1000 * time.Hour) })
		if err := os.WriteFile(filepath.Join(dir, markFile), ahead, 0o600); err != nil {
			t.Fatal(err)
		}
		w.put(older)
		r = w.start(in(dir))
		writes := w.writes()
		sleep(10 * time.Minute)
		if got := r.alarms(); !slices.Equal(got, []string{"frozen"}) || len(r.handedOn()) != 0 || w.writes() == writes || w.manifest().Frozen == nil {
			t.Errorf("alarms %v, handed on %d, wrote %d times", got, len(r.handedOn()), w.writes()-writes)
		}
		r.stop()
	})
}

// TestMarkNotKept: an alarm until the file holds the mark again, also while
// the store is away.
func TestMarkNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, dir := newWorld(t), t.TempDir()
		file := filepath.Join(dir, markFile)
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		r := w.start(in(dir))
		sleep(20 * time.Minute)
		if got := r.alarms(); got != nil {
			t.Fatalf("alarms %v", got)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(file, 0o700); err != nil { // as good as a full disk
			t.Fatal(err)
		}
		sleep(time.Hour)
		if got := r.rot.Alarms(); len(got) != 1 || got[0].Code != "mark_not_kept" || !strings.Contains(got[0].Message, "make room in state_dir") {
			t.Fatalf("alarms %+v", got)
		}
		w.change(func() { w.down = keyring.ErrUnavailable })
		sleep(5 * time.Minute)
		if got := r.alarms(); !slices.Contains(got, "mark_not_kept") || !slices.Contains(got, "store_unavailable") {
			t.Errorf("with the store down: alarms %v", got)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		sleep(time.Minute)
		if got := r.alarms(); !slices.Equal(got, []string{"store_unavailable"}) {
			t.Errorf("with room again: alarms %v", got)
		}
		if doc, err := os.ReadFile(file); err != nil || string(doc) != string(w.keep().doc) {
			t.Errorf("the mark is not kept: %v", err)
		}
		r.stop()
	})
}
