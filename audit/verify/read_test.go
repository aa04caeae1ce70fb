package verify

import (
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func packed(t *testing.T, path string) []byte {
	t.Helper()
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err = w.Write(doc)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestDamagedGzip: what gzip does not give out is damage of that file, and the
// others are judged all the same.
func TestDamagedGzip(t *testing.T) {
	j := newJournal(t, memDir(t))
	j.append(4)
	j.rotate()
	j.append(4)
	j.must(j.log.Close())
	doc := packed(t, j.old[0])
	sum := bytes.Clone(doc)
	sum[len(sum)-6] ^= 1 // of the checksum
	name := filepath.Join(memDir(t), "old.gz")
	for what, tc := range map[string]struct {
		doc     []byte
		line    int
		records uint64
	}{
		"its checksum": {sum, 5, 8},
		"its end":      {doc[:len(doc)-8], 5, 8},
		"its head":     {doc[:7], 1, 4},
		"all of it":    {doc[:2], 1, 4},
	} {
		j.must(os.WriteFile(name, tc.doc, 0o600))
		r := verified(t, []string{name, j.path}, Known{})
		wantDamage(t, r, Changed, name, tc.line)
		wantMessage(t, r, "from here on the file cannot be read", "take a copy of it from elsewhere")
		if r.Records != tc.records || len(r.Damages) != 1 {
			t.Errorf("%s: %d records, %+v", what, r.Records, r.Damages)
		}
	}
}

// TestOtherPackers: a file that another packer made is not called damaged.
func TestOtherPackers(t *testing.T) {
	for name, doc := range map[string]string{"zstd": "\x28\xb5\x2f\xfd\x04", "xz": "\xfd7zXZ\x00\x00", "bzip2": "BZh91AY", "lz4": "\x04\x22\x4d\x18@"} {
		path := filepath.Join(memDir(t), "log")
		if err := os.WriteFile(path, []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := Files([]string{path}, Known{}); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "packed by "+name) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// TestCopies: a file and its copy are called that, also where they are longer
// than what is remembered.
func TestCopies(t *testing.T) {
	for _, n := range []int{5, 3 * recent} {
		j := newJournal(t, memDir(t))
		j.append(2)
		j.rotate()
		j.append(n)
		j.rotate()
		j.append(2)
		j.must(j.log.Close())
		copied := j.old[1] + ".gz"
		j.must(os.WriteFile(copied, packed(t, j.old[1]), 0o600))
		r := verified(t, append(j.files(), copied), Known{})
		if len(r.Damages) != 1 || r.Damages[0].Kind != Duplicated || r.Damages[0].File != copied || r.Damages[0].Line != 1 || r.Damages[0].Seq != 3 {
			t.Errorf("%d records and their copy: %+v", n, r.Damages)
		}
		wantMessage(t, r, "stand there twice, and here for the second time; name a file and its copy, packed or not, only once")
		if c := r.Chains[0]; c.Head.Seq != uint64(n)+4 {
			t.Errorf("%+v", c)
		}
	}
}

// TestNothingButDamage: what is kept of a file is bounded, whatever stands there.
func TestNothingButDamage(t *testing.T) {
	path := filepath.Join(memDir(t), "log")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x\n"), maxHoles+7), 0o600); err != nil {
		t.Fatal(err)
	}
	r := verified(t, []string{path}, Known{})
	if len(r.Damages) != maxHoles || r.Damages[maxHoles-1].Line != maxHoles+7 {
		t.Errorf("%d damages", len(r.Damages))
	}
	wantNote(t, r, "7 more lines are no records")
}
