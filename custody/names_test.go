package custody

import (
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	for _, name := range []string{"main", "a", "0", "tokens.example.com", "a-b_c", strings.Repeat("x", 64)} {
		if err := CheckIssuer(name); err != nil {
			t.Errorf("CheckIssuer(%q) = %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", ".a", "-a", "_a", "a/b", "a+b", "+", "*", "a b", "a\x00", "ä", strings.Repeat("x", 65)} {
		if err := CheckIssuer(name); err == nil {
			t.Errorf("CheckIssuer(%q) took it", name)
		}
	}
	// A thumbprint may begin with '-' or '_'.
	for _, handle := range []string{"-bcd", "_bcd", "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"} {
		if err := CheckHandle(handle); err != nil {
			t.Errorf("CheckHandle(%q) = %v", handle, err)
		}
	}
	for _, handle := range []string{"", "..", "a/b", "a+b", strings.Repeat("x", 129)} {
		if err := CheckHandle(handle); err == nil {
			t.Errorf("CheckHandle(%q) took it", handle)
		}
	}
}
