package rotator

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// TestErrorAlarm: each alarm about a manifest that is not the one that was seen
// names the command that mends it; what mends itself does not.
func TestErrorAlarm(t *testing.T) {
	l := &loop{file: keyring.Config{Name: "main"}}
	for _, tc := range []struct {
		err    error
		code   string
		accept bool
	}{
		{fmt.Errorf("load manifest of %q: %w", "main", keyring.ErrCorrupt), "manifest_corrupt", true},
		{errBehind, "manifest_behind", true},
		{errLost, "manifest_missing", true},
		{keyring.ErrDenied, "store_denied", false},
		{errors.New("away"), "store_unavailable", false},
	} {
		a := l.errorAlarm(tc.err, time.Now())
		if a.Code != tc.code || !strings.HasPrefix(a.Message, tc.err.Error()) || strings.Contains(a.Message, "keyturn accept main puts it back") != tc.accept {
			t.Errorf("%v: %s %q", tc.err, a.Code, a.Message)
		}
	}
	told := fmt.Errorf("%w; keyturn accept main puts back the one that this process has seen", errBehind)
	if a := l.errorAlarm(told, time.Now()); a.Message != told.Error() {
		t.Errorf("told twice: %q", a.Message)
	}
}
