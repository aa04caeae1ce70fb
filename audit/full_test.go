package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// tinyDisk mounts a file system of a few pages, which needs root.
func tinyDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=32k,mode=0700"); err != nil {
		t.Fatalf("mount a tiny tmpfs: %v; run this test as root", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill appends records until the disk is full and returns those that were taken.
func fill(t *testing.T, l *Log) []string {
	t.Helper()
	var took []string
	for i := range 1000 {
		jti := fmt.Sprint("before-", i)
		err := l.Append(t.Context(), Record{JTI: jti, Reason: strings.Repeat("r", 700)})
		if errors.Is(err, unix.ENOSPC) {
			return took
		}
		if err != nil {
			t.Fatalf("Append = %v, want ENOSPC at some time", err)
		}
		took = append(took, jti)
	}
	t.Fatal("the tiny disk never filled")
	return nil
}

func TestFullDisk(t *testing.T) {
	dir := tinyDisk(t)
	path, ballast := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 8<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	l := mustOpen(t, path)
	want := fill(t, l)
	for range 3 { // it stays closed to all, and does no further damage
		if err := l.Append(t.Context(), Record{JTI: "refused", Reason: strings.Repeat("r", 5000)}); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("Append on a full disk = %v, want ENOSPC", err)
		}
	}
	if diff := cmp.Diff(want, jtis(t, path)); diff != "" {
		t.Errorf("on a full disk (-want +got):\n%s", diff)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "after")
	if diff := cmp.Diff(append(want, "after"), jtis(t, path)); diff != "" {
		t.Errorf("after there was room again (-want +got):\n%s", diff)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// appendOnly is chattr +a until the test ends.
func appendOnly(t *testing.T, l *Log) {
	t.Helper()
	set := func(flag int) {
		if err := unix.IoctlSetPointerInt(int(l.file.Fd()), unix.FS_IOC_SETFLAGS, flag); err != nil {
			t.Fatalf("chattr +a on tmpfs: %v (Linux 6.0 has it)", err)
		}
	}
	set(0x20) // FS_APPEND_FL of linux/fs.h
	t.Cleanup(func() { set(0) })
}

// TestFullDiskAppendOnly: with chattr +a a half line cannot be taken back, so
// the next record starts a line of its own.
func TestFullDiskAppendOnly(t *testing.T) {
	dir := tinyDisk(t)
	path, ballast := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 8<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	l := mustOpen(t, path)
	appendOnly(t, l)
	want := fill(t, l)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	half := string(data[strings.LastIndexByte(string(data), '\n')+1:])
	if half == "" {
		t.Fatal("the disk filled at the end of a line: choose another record size")
	}
	if err := l.Append(t.Context(), Record{JTI: "refused"}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Append on a full disk = %v, want ENOSPC", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "after")
	mustAppend(t, l, "later")
	if diff := cmp.Diff(append(want, "after", "later"), jtis(t, path, half)); diff != "" {
		t.Errorf("after there was room again (-want +got):\n%s", diff)
	}
	if n := wholeLog(t, path); n != len(want)+3 { // with the one that tells of the half
		t.Errorf("%d records", n)
	}
}

// TestFullDiskAppendOnlyGroup: of a group that failed some records may be whole.
// They stay, though nobody was told of them, and the chain goes on from the last.
func TestFullDiskAppendOnlyGroup(t *testing.T) {
	dir := tinyDisk(t)
	path, ballast := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 16<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	l := mustOpen(t, path)
	appendOnly(t, l)
	mustAppend(t, l, "before")
	var batch []Record
	for i := range 20 {
		batch = append(batch, Record{JTI: fmt.Sprint(i), Reason: strings.Repeat("r", 1000)})
	}
	if err := l.AppendAll(t.Context(), batch); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("AppendAll = %v, want ENOSPC", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole := strings.Count(string(data), "\n")
	if half := !strings.HasSuffix(string(data), "\n"); whole < 3 || !half {
		t.Fatalf("%d records, half a one: %v; choose another record size", whole, half)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "after")
	if n := wholeLog(t, path); n != whole+2 { // with the one that tells of the half
		t.Errorf("%d records, want %d", n, whole+2)
	}
}
