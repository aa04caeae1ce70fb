package cli

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/atomicfile/tinyfs"
)

// lines collects what is said.
type lines struct {
	mu  sync.Mutex
	out strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.String()
}

// TestTokenFileWithoutRoom: while its file system is full the file keeps the
// old token, whole, and the new one comes when there is room again.
func TestTokenFileWithoutRoom(t *testing.T) {
	tinyfs.Run(t, 64<<10, func(t *testing.T, dir string) {
		var n atomic.Int32
		socket := filepath.Join(t.TempDir(), "s")
		ln, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"token":"a.b.token-%d","kid":"k","expires_at":"2026-03-01T12:00:00Z","expires_in":300}`, n.Add(1))
		})}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(ln) }()
		defer func() { _ = srv.Close(); <-served }()

		said, again := &lines{}, make(chan os.Signal, 1)
		f := &tokenFile{client: client{path: socket}, req: api.SignRequest{Profile: "p"}, path: filepath.Join(dir, "token"), mode: 0o600, log: said}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.watch(ctx, again) }()
		holds := func(want string) {
			t.Helper()
			for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
				doc, err := os.ReadFile(f.path)
				if string(doc) == want {
					return
				}
				if time.Since(began) > 20*time.Second {
					t.Fatalf("the file holds %q %v, want %s; it says\n%s", doc, err, want, said)
				}
			}
		}
		holds("a.b.token-1")
		free := tinyfs.Fill(t, dir)
		again <- syscall.SIGHUP
		for began := time.Now(); !strings.Contains(said.String(), "no space left"); time.Sleep(20 * time.Millisecond) {
			if time.Since(began) > 20*time.Second {
				t.Fatalf("it says\n%s", said)
			}
		}
		holds("a.b.token-1")
		free()
		for began := time.Now(); !strings.Contains(said.String(), "fresh again"); time.Sleep(20 * time.Millisecond) {
			if time.Since(began) > 30*time.Second {
				t.Fatalf("it says\n%s", said)
			}
		}
		holds(fmt.Sprint("a.b.token-", n.Load()))
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %q %v", left, err)
		}
	})
}
