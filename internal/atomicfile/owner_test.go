package atomicfile_test

import (
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/atomicfile"
)

// info is what a file says of itself, without a file.
type info struct {
	mode fs.FileMode
	sys  any
}

func (info) Name() string        { return "x" }
func (info) Size() int64         { return 0 }
func (i info) Mode() fs.FileMode { return i.mode }
func (info) ModTime() time.Time  { return time.Time{} }
func (i info) IsDir() bool       { return i.mode.IsDir() }
func (i info) Sys() any          { return i.sys }
func owned(uid, gid uint32) any  { return &syscall.Stat_t{Uid: uid, Gid: gid} }
func says(err error, s string) bool {
	return err == nil && s == "" || err != nil && s != "" && strings.Contains(err.Error(), s)
}

func TestOwnersAndWriters(t *testing.T) {
	own := uint32(os.Geteuid())
	for name, tc := range map[string]struct {
		info           info
		owner, writers string
	}{
		"ours":                       {info{0o600, owned(own, 77)}, "", ""},
		"root's":                     {info{0o644, owned(0, 0)}, "", ""},
		"another user's":             {info{0o600, owned(own+1234, 0)}, "run chown", "run chown"},
		"everybody writes":           {info{0o602, owned(own, 0)}, "", "chmod go-w"},
		"everybody, with sticky bit": {info{fs.ModeDir | fs.ModeSticky | 0o777, owned(0, 0)}, "", "chmod go-w"},
		"a group writes":             {info{0o660, owned(own, 77)}, "", "chmod g-w"},
		"root's group writes":        {info{0o660, owned(own, 0)}, "", ""},
		"nobody tells":               {info{0o600, nil}, "does not tell", "does not tell"},
	} {
		if err := atomicfile.CheckOwner(tc.info); !says(err, tc.owner) {
			t.Errorf("%s: CheckOwner = %v, want %q", name, err, tc.owner)
		}
		if err := atomicfile.CheckWriters(tc.info); !says(err, tc.writers) {
			t.Errorf("%s: CheckWriters = %v, want %q", name, err, tc.writers)
		}
	}
}
