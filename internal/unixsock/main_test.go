package unixsock

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// dialEnv makes this binary a client: it connects to the path and copies what it hears.
const dialEnv = "UNIXSOCK_TEST_DIAL"

func TestMain(m *testing.M) {
	if path := os.Getenv(dialEnv); path != "" {
		os.Exit(client(path))
	}
	goleak.VerifyTestMain(m)
}

func client(path string) int {
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	resp, err := c.Get("http://daemon/")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer resp.Body.Close()
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		return 1
	}
	return 0
}

// openDirFor makes a directory that every user can reach and only we can write.
func openDirFor(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "unixsock") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// clientAs runs the client as another user: a real second uid, which needs root.
func clientAs(t *testing.T, path string, who syscall.Credential) (string, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test becomes another user: run it as root")
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(openDirFor(t), "client") // go test's own directory is closed to other users
	if err := os.WriteFile(binary, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), dialEnv+"="+path)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &who}
	out, err := cmd.CombinedOutput()
	return string(out), err
}
