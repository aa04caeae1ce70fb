package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// kidsIn reads a published set: every key of it has a kid of its own and no
// private member.
func kidsIn(doc []byte) ([]string, error) {
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(doc, &set); err != nil {
		return nil, fmt.Errorf("no key set: %w", err)
	}
	var kids []string
	for _, k := range set.Keys {
		kid, _ := k["kid"].(string)
		if kid == "" || slices.Contains(kids, kid) || k["d"] != nil || k["kty"] != "EC" || k["alg"] != "ES256" || k["use"] != "sig" || k["x"] == nil || k["y"] == nil {
			return nil, fmt.Errorf("not a key as it should be: %v", k)
		}
		kids = append(kids, kid)
	}
	if len(kids) == 0 {
		return nil, errors.New("an empty set")
	}
	return kids, nil
}

// TestFileEditedByHand: what others make of the published file is repaired,
// counted and told; what is not ours to touch is left alone.
func TestFileEditedByHand(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("@every 10s", "@every 1h")
	d := s.start("web")
	d.standby(10*time.Second, "web")
	file := s.path("www/jwks.json")
	want, err := os.ReadFile(file)
	must(t, err)
	if kids, err := kidsIn(want); err != nil || len(kids) != 2 {
		t.Fatalf("%v %v", kids, err)
	}
	for _, harm := range []struct {
		name string
		do   func() error
	}{
		{"edited", func() error { return os.WriteFile(file, []byte(`{"keys":[]}`), 0o644) }},
		{"cut off", func() error { return os.Truncate(file, 20) }},
		{"removed", func() error { return os.Remove(file) }},
		{"replaced", func() error { return os.Rename(s.seeded("other.json", `{"keys":[{"kty":"oct"}]}`), file) }},
		{"side file removed", func() error { return os.Remove(file + ".keyturn") }},
		{"side file scribbled", func() error { return os.WriteFile(file+".keyturn", []byte("{"), 0o644) }},
	} {
		before := drifts(t, d)
		must(t, harm.do())
		within(t, 5*time.Second, harm.name+": repaired", func() error {
			got, err := os.ReadFile(file)
			if err != nil || !bytes.Equal(got, want) {
				return fmt.Errorf("%q %v", got, err)
			}
			if side, err := os.ReadFile(file + ".keyturn"); err != nil || !json.Valid(side) {
				return fmt.Errorf("beside it %q %v", side, err)
			}
			return nil
		})
		if strings.HasPrefix(harm.name, "side") {
			continue // which the next renewal of the lease may write before anybody has looked
		}
		within(t, 5*time.Second, harm.name+": counted", func() error {
			if now := drifts(t, d); now != before+1 {
				return fmt.Errorf("%d drifts, %d before", now, before)
			}
			return nil
		})
	}
	d.logged(time.Second, "somebody else changed or removed the file")
	within(t, 5*time.Second, "all well again", func() error {
		if code, h, err := d.health("/readyz"); err != nil || code != 200 || h.Status != "ok" {
			return fmt.Errorf("%d %+v %v", code, h, err)
		}
		return nil
	})
	leftAlone(t, s, d, file, want)
}

// drifts is how often the daemon has found the file changed by others.
func drifts(t *testing.T, d *daemon) int {
	t.Helper()
	n := 0
	if line := d.metric(`keyturn_publication_drifts_total{issuer="main",target="file"}`); line != "" {
		_, err := fmt.Sscanf(line, `keyturn_publication_drifts_total{issuer="main",target="file"} %d`, &n)
		must(t, err)
	}
	return n
}

// leftAlone: what stands at the file's place and is no file is not replaced,
// and told; once it is gone the file comes back.
func leftAlone(t *testing.T, s *site, d *daemon, file string, want []byte) {
	t.Helper()
	for name, put := range map[string]func() error{
		"a link":   func() error { return os.Symlink(s.seeded("elsewhere.json", "precious"), file) },
		"a folder": func() error { return os.Mkdir(file, 0o755) },
		"a FIFO":   func() error { return syscall.Mkfifo(file, 0o644) }, // whose opening would wait for a writer
	} {
		within(t, 5*time.Second, name, func() error { // in the moment between two looks
			return errors.Join(os.Remove(file), put())
		})
		within(t, 5*time.Second, name+": told", func() error {
			_, h, err := d.health("/readyz")
			if err != nil || h.Status == "ok" {
				return fmt.Errorf("%+v %v", h, err)
			}
			return nil
		})
		if info, err := os.Lstat(file); err != nil || info.Mode().IsRegular() {
			t.Errorf("%s was replaced: %v %v", name, info, err)
		}
		must(t, os.Remove(file))
		within(t, 5*time.Second, name+": repaired once it is gone", func() error {
			got, err := os.ReadFile(file)
			if err != nil || !bytes.Equal(got, want) {
				return fmt.Errorf("%q %v", got, err)
			}
			return nil
		})
	}
	if doc, err := os.ReadFile(s.path("elsewhere.json")); err != nil || string(doc) != "precious" {
		t.Errorf("what the link pointed to: %q %v", doc, err)
	}
}

// seeded writes a file beside the published ones and returns its path.
func (s *site) seeded(name, text string) string {
	s.t.Helper()
	s.write(name, text, 0o644)
	return s.path(name)
}

// list names what is in a folder.
func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestFileFolderWithoutRoom: the file system of a published file is full. The
// old file stays whole, nothing is left beside it, no key becomes active that
// it does not show, and an alarm says why. With room all goes on.
func TestFileFolderWithoutRoom(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("outage_budget: 4s", "outage_budget: 1m") // for longer than the test the old set may be served
	d, www := s.onTmpfs("www", "64k")
	file := filepath.Join(www, "jwks.json")
	d.standby(10*time.Second, "web")
	before := list(t, www)
	free := fill(t, www)
	old, err := os.ReadFile(file)
	must(t, err)
	known, err := kidsIn(old)
	must(t, err)
	// The first rotation goes to the standby that the file shows, the next has nobody.
	waiting := func() (api.Key, bool) {
		k, found := d.key("web", "standby")
		return k, found && slices.Equal(k.WaitingFor, []string{"file"})
	}
	within(t, 30*time.Second, "an overdue rotation", func() error {
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, old) {
			t.Fatalf("the old file is not whole: %q %v", got, err)
		}
		if kid := d.mustToken("web").Kid; !slices.Contains(known, kid) {
			t.Fatalf("%s signs, and the file shows %v", kid, known)
		}
		_, h, err := d.health("/readyz")
		codes := reasonCodes(h)
		if _, found := waiting(); err != nil || !found || !slices.Contains(codes, "rotation_overdue") || !slices.Contains(codes, "publish_failed") {
			return fmt.Errorf("reasons %v %v", codes, err)
		}
		return nil
	})
	status, _, code := cli(t, nil, "status", "--admin-socket", d.admin)
	if code != 0 {
		t.Errorf("keyturn status: exit code %d", code)
	}
	wants(t, status, "no space left on device", "publish_failed (main, file)")
	if now := list(t, www); len(now) != len(before)+1 { // and the filler
		t.Errorf("litter: %v, before: %v", now, before)
	}
	next, _ := waiting()
	free()
	within(t, 15*time.Second, "the rotation that was overdue", func() error {
		if k, _ := d.key("web", "active"); k.Kid != next.Kid {
			return fmt.Errorf("%s is active", k.Kid)
		}
		return nil
	})
	if kids, err := kidsIn(must1(os.ReadFile(file))(t)); err != nil || !slices.Contains(kids, next.Kid) {
		t.Errorf("%v %v", kids, err)
	}
}

func reasonCodes(h api.Health) []string {
	var codes []string
	for _, r := range h.Reasons {
		codes = append(codes, r.Code)
	}
	return codes
}

// must1 is must for a call with a result.
func must1[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

// TestFileFolderNotOurs: a daemon that is no root loses its way into the
// folder. No key becomes active that the file does not show; when the file is
// too old to be served and cannot be taken away, health says that this host has
// to leave service.
func TestFileFolderNotOurs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	one := someone{4201, 4201, nil}
	must(t, filepath.WalkDir(s.dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, one.uid, one.gid))
	}))
	must(t, os.WriteFile(s.path("keyturn"), must1(os.ReadFile(plain))(t), 0o755))
	d := startBinary(t, "setpriv", s.daemon(), nil, "--reuid=4201", "--regid=4201", "--clear-groups", "--inh-caps=-all",
		s.path("keyturn"), "run", "--config", s.save())
	d.canSign(30*time.Second, "web")
	old := d.standby(10*time.Second, "web").Kid
	file := s.path("www/jwks.json")
	must(t, os.Chown(s.path("www"), 0, 0))
	doc := must1(os.ReadFile(file))(t)
	within(t, 40*time.Second, "an overdue rotation and a file too old", func() error {
		code, h, err := d.health("/readyz")
		codes := reasonCodes(h)
		for _, want := range []string{"rotation_overdue", "publish_failed", "take_away_failed"} {
			if err != nil || !slices.Contains(codes, want) || code != 503 {
				return fmt.Errorf("%d, reasons %v %v", code, codes, err)
			}
		}
		return nil
	})
	if got := must1(os.ReadFile(file))(t); !bytes.Equal(got, doc) {
		t.Errorf("the old file is not whole: %q", got)
	}
	if kid := d.mustToken("web").Kid; kid != old {
		t.Errorf("%s signs, want the standby that was published, %s", kid, old)
	}
	status, _, code := cli(t, nil, "status", "--admin-socket", d.admin)
	if code != 2 {
		t.Errorf("keyturn status: exit code %d, and the public set is not good", code)
	}
	wants(t, status, "NOT READY", "permission denied", "take this host out of service, or remove the file")
	must(t, os.Chown(s.path("www"), one.uid, one.gid))
	within(t, 15*time.Second, "the rotation that was overdue", func() error {
		if kid := d.mustToken("web").Kid; kid == old {
			return fmt.Errorf("%s signs on", kid)
		}
		return nil
	})
	if code, h, err := d.health("/readyz"); err != nil || code != 200 {
		t.Errorf("/readyz: %d %+v %v", code, h, err)
	}
}
