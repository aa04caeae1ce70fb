package publisher_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/internal/atomicfile/tinyfs"
	"github.com/keyturn/keyturn/keyring"
)

// A full, then a read-only disk: the old file stays whole, the new key is not
// confirmed, and everything is well again when the disk is.
func TestFullAndReadOnlyDisk(t *testing.T) {
	tinyfs.Run(t, 256<<10, func(t *testing.T, dir string) {
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(dir, "jwks.json")
			h := startFile(t, path)
			a, b, c := newKey(t, keyring.ES256), newKey(t, keyring.ES256), newKey(t, keyring.ES256)
			one := snapshot(time.Now(), 1, a)
			h.accept(one)

			free := tinyfs.Fill(t, dir)
			rest(time.Minute)
			two := snapshot(time.Now(), 2, a, b)
			h.accept(two)
			h.wantCodes(t, "publish_failed")
			if st := h.status(t, "file"); !errors.Is(st.Err, syscall.ENOSPC) || !st.ServeUntil.Equal(one.ServeUntil()) || !slices.Equal(st.Behind, kids(b)) {
				t.Errorf("on a full disk: %+v", st)
			}
			wantSet(t, path, a)
			h.wantConfirmed(t, "file", a)
			wantDir(t, dir, "filler", "jwks.json", "jwks.json.keyturn", "jwks.json.keyturn.lock")
			free()
			rest(interval + time.Second)
			wantSet(t, path, a, b)
			h.wantCodes(t)
			h.wantConfirmed(t, "file", a, b)

			tinyfs.ReadOnly(t, dir, true)
			rest(10 * time.Minute)
			h.accept(snapshot(time.Now(), 3, a, b, c))
			h.wantCodes(t, "publish_failed")
			if err := h.status(t, "file").Err; !errors.Is(err, syscall.EROFS) {
				t.Errorf("on a read-only disk: %v", err)
			}
			wantSet(t, path, a, b)
			h.wantConfirmed(t, "file", a, b)

			// The set that is there ends at its own time, not at that of the
			// snapshot which could not be written.
			rest(time.Until(two.ServeUntil()) + time.Second)
			h.wantCodes(t, "publish_failed", "take_away_failed!")
			wantSet(t, path, a, b)
			tinyfs.ReadOnly(t, dir, false)
			rest(interval + time.Second)
			wantSet(t, path, a, b, c)
			h.wantCodes(t)

			// A full disk does not keep an old file from being taken away.
			free = tinyfs.Fill(t, dir)
			rest(lease + tail)
			wantGone(t, path)
			h.wantCodes(t, "serve_expired!")
			free()
			h.stop()
		})
	})
}

// There is room for the side file and not for the set: what stands is the old
// set, known as such, with the end that it had.
func TestDiskIsFullInBetween(t *testing.T) {
	tinyfs.Run(t, 256<<10, func(t *testing.T, dir string) {
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(dir, "jwks.json")
			h := startFile(t, path)
			key := newKey(t, keyring.ES256)
			one := snapshot(time.Now(), 1, key)
			h.accept(one)
			free := tinyfs.Fill(t, dir)
			info, err := os.Stat(dir + "/filler")
			must(t, err)
			must(t, os.Truncate(dir+"/filler", info.Size()-int64(os.Getpagesize())))
			rest(time.Minute)
			var many []keyring.JWK
			for range 30 {
				many = append(many, newKey(t, keyring.ES256))
			}
			two := snapshot(time.Now(), 2, key, many...)
			h.accept(two)
			if side := readSide(t, path); len(side.Sets) != 2 || side.Sets[1].Generation != 2 {
				t.Fatalf("the side file was not written: %+v", side)
			}
			rest(3 * interval)
			h.wantCodes(t, "publish_failed")
			if st := h.status(t, "file"); !errors.Is(st.Err, syscall.ENOSPC) || st.Generation != 1 || !st.ServeUntil.Equal(one.ServeUntil()) {
				t.Errorf("status %+v", st)
			}
			wantSet(t, path, key)
			rest(time.Until(one.ServeUntil()) + time.Second)
			wantGone(t, path)
			free()
			rest(interval + time.Second)
			wantSet(t, path, append(many, key)...)
			h.wantCodes(t)
			if h.events.drifted.Load() > 0 {
				t.Error("a full disk was counted as drift")
			}
			h.stop()
		})
	})
}

// The same bytes under a renewed lease stay while this process knows that they
// are right, though the side file cannot be written.
func TestRenewedLeaseOnAReadOnlyDisk(t *testing.T) {
	tinyfs.Run(t, 256<<10, func(t *testing.T, dir string) {
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(dir, "jwks.json")
			h := startFile(t, path)
			key := newKey(t, keyring.ES256)
			h.accept(snapshot(time.Now(), 1, key))
			tinyfs.ReadOnly(t, dir, true)
			rest(lease)
			h.accept(snapshot(time.Now(), 2, key))
			h.wantCodes(t, "publish_failed")
			rest(tail + time.Minute)
			h.wantCodes(t, "publish_failed")
			rest(lease)
			h.wantCodes(t, "publish_failed", "take_away_failed!")
			tinyfs.ReadOnly(t, dir, false)
			rest(interval + time.Second)
			wantGone(t, path)
			h.stop()
		})
	})
}

func TestDirectoryIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "srv")
		path := filepath.Join(dir, "jwks.json")
		h := startFile(t, path)
		key := newKey(t, keyring.ES256)
		h.accept(snapshot(time.Now(), 1, key))
		h.wantCodes(t, "publish_failed!")
		must(t, os.Mkdir(dir, 0o755))
		rest(interval + time.Second)
		wantSet(t, path, key)
		h.wantCodes(t)
		must(t, os.RemoveAll(dir))
		rest(interval + time.Second)
		h.wantCodes(t, "publish_failed!")
		must(t, os.WriteFile(dir, nil, 0o644)) // not a directory
		rest(interval + time.Second)
		if err := h.status(t, "file").Err; err == nil || !strings.Contains(err.Error(), "not a directory") {
			t.Errorf("where a file stands for the directory: %v", err)
		}
		must(t, os.Remove(dir))
		must(t, os.Mkdir(dir, 0o755))
		rest(interval + time.Second)
		wantSet(t, path, key)
	})
}

// A lock that somebody holds is waited for, and only so long.
func TestLockIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		f, err := os.Create(path + ".keyturn.lock")
		must(t, err)
		must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
		h := startFile(t, path)
		h.Accept("main", snapshot(time.Now(), 1, newKey(t, keyring.ES256)))
		rest(6 * time.Second)
		h.wantCodes(t, "publish_failed!")
		wantGone(t, path)
		must(t, f.Close())
		rest(interval)
		h.wantCodes(t)

		// Without the lock nothing is taken away either: whoever holds it may
		// be about to bring a newer set.
		f, err = os.Open(path + ".keyturn.lock")
		must(t, err)
		must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
		rest(lease + tail + interval)
		h.wantCodes(t, "publish_failed", "take_away_failed!")
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
		must(t, f.Close())
		rest(interval)
		wantGone(t, path)
	})
}
