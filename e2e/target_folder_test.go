package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// TestFileFolderUnfit: the file system of a published file becomes read-only,
// or its folder is gone. What was there stays whole, nothing is left beside it and
// no folder is made in the place of the lost one; no key becomes active that
// the file does not show. When it is mended all goes on.
func TestFileFolderUnfit(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct {
		begin, end func(t *testing.T, d *daemon, www string)
		readable   bool
		said       string
	}{
		"read-only": {remounted("ro"), remounted("rw"), true, "read-only file system"},
		"gone": {func(t *testing.T, _ *daemon, www string) { must(t, os.Rename(www, www+".away")) },
			func(t *testing.T, _ *daemon, www string) { must(t, os.Rename(www+".away", www)) }, false, "no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t).edit("outage_budget: 4s", "outage_budget: 1m").edit("file: www/jwks.json", "file: disk/www/jwks.json") // see TestFileFolderWithoutRoom
			must(t, os.MkdirAll(s.path("disk"), 0o755))
			d, disk := s.onMounted("disk", "www")
			www := filepath.Join(disk, "www")
			file := filepath.Join(www, "jwks.json")
			d.standby(10*time.Second, "web")
			before, old := list(t, www), must1(os.ReadFile(file))(t)
			known := must1(kidsIn(old))(t)
			fault.begin(t, d, www)
			next := d.waitsForFile(t, known)
			d.saysOfFile(t, fault.said)
			if fault.readable {
				if now := must1(os.ReadFile(file))(t); !bytes.Equal(now, old) {
					t.Errorf("the old file is not whole: %q", now)
				}
				if now := list(t, www); !slices.Equal(now, before) {
					t.Errorf("litter: %v, before %v", now, before)
				}
			} else if _, err := os.Stat(www); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("somebody made the folder: %v", err)
			}
			fault.end(t, d, www)
			within(t, 15*time.Second, "the rotation that was overdue", func() error {
				if k, _ := d.key("web", "active"); k.Kid != next.Kid {
					return fmt.Errorf("%s is active", k.Kid)
				}
				return nil
			})
			if kids, err := kidsIn(must1(os.ReadFile(file))(t)); err != nil || !slices.Contains(kids, next.Kid) {
				t.Errorf("%v %v", kids, err)
			}
			d.reason(10*time.Second, "ok", "", "")
		})
	}
}

// onMounted runs the daemon with a small file system of its own in a folder,
// in which another one is made.
func (s *site) onMounted(folder, within string) (*daemon, string) {
	s.t.Helper()
	script := fmt.Sprintf("mount -t tmpfs -o size=1m,mode=0755 tmpfs %s && mkdir %s && exec \"$@\"", s.path(folder), s.path(folder+"/"+within))
	d := startBinary(s.t, "unshare", s.daemon(), nil, "--mount", "sh", "-c", script, "sh", keyturn, "run", "--config", s.save())
	d.canSign(30*time.Second, "web")
	return d, fmt.Sprintf("/proc/%d/root%s", d.cmd.Process.Pid, s.path(folder))
}

// remounted changes what may be done to the file system of the daemon's folder.
func remounted(how string) func(t *testing.T, d *daemon, www string) {
	return func(t *testing.T, d *daemon, _ string) {
		t.Helper()
		out, err := exec.Command("nsenter", "-t", strconv.Itoa(d.cmd.Process.Pid), "-m", "mount", "-o", "remount,"+how, filepath.Join(d.dir, "disk")).CombinedOutput()
		if err != nil {
			t.Fatalf("remount %s: %v: %s", how, err, out)
		}
	}
}

// waitsForFile waits until a rotation is overdue, since the file does not show
// the standby; whoever signs meanwhile was in the file before.
func (d *daemon) waitsForFile(t *testing.T, known []string) api.Key {
	t.Helper()
	var next api.Key
	within(t, 40*time.Second, "an overdue rotation", func() error {
		if kid := d.mustToken("web").Kid; !slices.Contains(known, kid) {
			t.Fatalf("%s signs, and the file shows %v", kid, known)
		}
		_, h, err := d.health("/readyz")
		codes := reasonCodes(h)
		k, found := d.key("web", "standby")
		if err != nil || !found || !slices.Equal(k.WaitingFor, []string{"file"}) || !slices.Contains(codes, "rotation_overdue") || !slices.Contains(codes, "publish_failed") {
			return fmt.Errorf("standby %+v, reasons %v %v", k, codes, err)
		}
		next = k
		return nil
	})
	d.alarmed("publish_failed", true)
	return next
}

// saysOfFile wants the reason in the answer of keyturn status.
func (d *daemon) saysOfFile(t *testing.T, why string) {
	t.Helper()
	status, _, _ := cli(t, nil, "status", "--admin-socket", d.admin)
	wants(t, status, why, "publish_failed (main, file)")
	if n := d.metric(`keyturn_publications_total{issuer="main",result="error",target="file"}`); n == "" {
		t.Error("no failed publication is counted")
	}
}
