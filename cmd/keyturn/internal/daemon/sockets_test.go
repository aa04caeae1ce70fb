package daemon

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/internal/unixsock"
)

// TestSocketGone: a socket whose file was taken away, or exchanged, is an alarm
// from the time at which that was seen, as long as it lasts.
func TestSocketGone(t *testing.T) {
	d := reloadable(t, configs.PublicListener{})
	dir := filepath.Join(t.TempDir(), "run")
	path := filepath.Join(dir, "sign.sock")
	ln, err := d.unix(path, unixsock.Config{GID: -1})
	must(t, err)
	defer ln.Close()
	now := time.Now()
	expect := func(at time.Time, want string) {
		t.Helper()
		a := d.socketAlarms(at)
		if want == "" {
			if len(a) != 0 {
				t.Errorf("%+v, want none", a)
			}
			return
		}
		if len(a) != 1 || a[0].Code != "socket_gone" || a[0].Fatal || !a[0].Since.Equal(now) || !strings.HasPrefix(a[0].Message, path+want) {
			t.Errorf("%+v, want %q", a, want)
		}
	}
	expect(now, "")
	must(t, os.Rename(dir, dir+".away"))
	expect(now, " was removed while")
	expect(now.Add(time.Minute), " was removed while")
	must(t, os.Rename(dir+".away", dir))
	expect(now, "")
	must(t, os.Remove(path))
	other, err := net.Listen("unix", path)
	must(t, err)
	defer other.Close()
	expect(now, " is another file while")
	d.stopping.Store(true)
	expect(now, "")
}
