// Package tinyfs gives a test a file system of its own that is small enough to
// fill and can be made read-only, which file modes cannot do to root.
//
// The test runs a second time, in a child process with its own user and mount
// namespace, so it needs no root and leaves no mount behind. It is for tests
// only and imports the standard library and x/sys.
package tinyfs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	child = "KEYTURN_TINYFS_CHILD" // holds the name of the test that the child is for
	ran   = "tinyfs: the test ran in its namespace"
)

// Run calls f, in the child process, with an empty directory on a tmpfs of
// size bytes (rounded up to pages). The caller's test fails where the child
// fails, and where namespaces are not to be had. What the test does before
// Run is done in both processes.
func Run(t *testing.T, size int, f func(t *testing.T, dir string)) {
	t.Helper()
	if os.Getenv(child) == t.Name() {
		fmt.Println(ran)
		f(t, mount(t, size))
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run="+pattern(t.Name()), "-test.count=1")
	cmd.Env = append(os.Environ(), child+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in a user and mount namespace (this test needs them: allow them, or run as root outside a container): %v\n%s", err, out)
	}
	if !strings.Contains(string(out), ran) {
		t.Fatalf("the child did not run the test:\n%s", out)
	}
}

// Fill leaves no free byte on the file system of dir: it writes a file that
// the returned func removes.
func Fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := dir + "/filler"
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !strings.Contains(err.Error(), "no space") {
		t.Fatalf("fill %s: %v", dir, err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// ReadOnly makes the file system of dir read-only, or writable again.
func ReadOnly(t *testing.T, dir string, on bool) {
	t.Helper()
	flags := uintptr(unix.MS_REMOUNT)
	if on {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("", dir, "", flags, ""); err != nil {
		t.Fatalf("remount %s: %v", dir, err)
	}
}

func mount(t *testing.T, size int) string {
	dir := t.TempDir()
	// Nothing that happens here reaches the mounts of others.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatalf("make mounts private: %v", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0755", size)); err != nil {
		t.Fatalf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// pattern matches exactly the test of that name.
func pattern(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}
