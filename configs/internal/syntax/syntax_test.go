package syntax

import (
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "web-1": true, "0": true, strings.Repeat("a", 63): true, strings.Repeat("a", 64): false,
		"-a": false, "a-": false, "A": false, "a_b": false, "a/b": false, "a.b": false, "..": false, "é": false, "a b": false, "a\n": false,
	} {
		if got := Name(name) == nil; got != ok {
			t.Errorf("name %q: %v, want %v", name, got, ok)
		}
	}
}

func TestIssuerURL(t *testing.T) {
	for url, want := range map[string]string{
		"https://tokens.example.com":            "",
		"https://tokens.example.com:8443/a/b":   "",
		"http://localhost:8080":                 "",
		"http://127.0.0.1:8080/x":               "",
		"http://[::1]:8080":                     "",
		"http://tokens.example.com":             "plain http is for localhost only",
		"tokens.example.com":                    "must begin with https://",
		"ftp://tokens.example.com":              "must begin with https://",
		"https://":                              "names no host",
		"https://tokens.example.com/":           "take the slash at its end away: https://tokens.example.com",
		"https://tokens.example.com/a/":         "take the slash",
		"https://tokens.example.com?x=1":        "take the query",
		"https://tokens.example.com/?":          "take the query",
		"https://tokens.example.com#f":          "take the fragment",
		"https://u:p@tokens.example.com":        "take the user and password out",
		"https://Tokens.example.com":            "lower case",
		"HTTPS://tokens.example.com":            "lower case",
		"https://tokens.example.com/a/../b":     "must be plain",
		"https://tokens.example.com//a":         "must be plain",
		"https://tokens.example.com/%61":        "must be plain",
		"https://tokens.example.com:443":        "take the port :443 away",
		"https://tokens.example.com:99999":      "is no port",
		"https://tokens.example.com:":           "is no port",
		"https://tokens example.com":            "no URL",
		"http://localhost.evil.example":         "plain http is for localhost only",
		"http://127.0.0.1.evil.example/a":       "plain http is for localhost only",
		"https://tokens.example.com/\u202eabc":  "must be plain",
		"https://tokens.example.com/a b":        "must be plain",
		"https://tokens.example.com/a\\b":       "must be plain",
		"https://tokens.example.com/%2e%2e/abc": "must be plain",
	} {
		err := IssuerURL(url)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("IssuerURL(%q) = %v, want %q", url, err, want)
		}
	}
}

func TestReplica(t *testing.T) {
	for s, ok := range map[string]bool{
		"a": true, "host-1.example.com": true, "A_b": true, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false, "": false, "-a": false, ".a": false, "a/b": false, "a b": false, "é": false, "a\n": false,
	} {
		if err := Replica(s); (err == nil) != ok {
			t.Errorf("replica %q: %v, want %v", s, err, ok)
		}
	}
}

func TestMount(t *testing.T) {
	for s, ok := range map[string]bool{
		"keyturn": true, "a/b": true, "a.b/c-d_e": true, "": false, "/a": false, "a/": false, "a//b": false, ".": false, "..": false, "a/../b": false, "a/..": false, "...": true, "a b": false, "é": false,
	} {
		if err := Mount(s); (err == nil) != ok {
			t.Errorf("mount %q: %v, want %v", s, err, ok)
		}
	}
}

func TestSockets(t *testing.T) {
	for s, want := range map[string]string{
		"0660": "", "660": "", "0600": "", "0666": "", "0777": "read and write bits only", "0640": "", "0661": "read and write bits only", "0060": "own user out", "0400": "own user out", "0200": "own user out",
		"": "is no mode", "0o660": "is no mode", "1660": "is no mode", "00660": "is no mode", "0680": "is no mode", "66": "is no mode", "u+rw": "is no mode",
	} {
		if err := SocketMode(s); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("mode %q: %v, want %q", s, err, want)
		}
	}
	if got := FileMode("0640"); got != 0o640 {
		t.Errorf("mode %o", got)
	}
	for s, ok := range map[string]bool{"keyturn": true, "1000": true, "a.b-c_d": true, "host$": true, "": false, "-a": false, "a b": false, "a$b": false, "a:b": false} {
		if err := Group(s); (err == nil) != ok {
			t.Errorf("group %q: %v, want %v", s, err, ok)
		}
	}
	for length, ok := range map[int]bool{107: true, 108: false} {
		if err := SocketPath(strings.Repeat("x", length)); (err == nil) != ok {
			t.Errorf("path of %d bytes: %v, want %v", length, err, ok)
		}
	}
}

func TestAddresses(t *testing.T) {
	for s, ok := range map[string]bool{
		":8443": true, "127.0.0.1:0": true, "[::1]:80": true, "host.example:65535": true, "host": false, ":65536": false, ":http": false, "": false, "a/b:1": false, "a b:1": false, "::1:80": false,
	} {
		if err := ListenAddr(s); (err == nil) != ok {
			t.Errorf("address %q: %v, want %v", s, err, ok)
		}
	}
	for s, ok := range map[string]bool{
		"/jwks.json": true, "/a/.well-known/jwks.json": true, "/": false, "": false, "a": false, "/a/": false, "//a": false, "/a/../b": false, "/a?b": false, "/a#b": false, "/%61": false, "/a b": false, "@evil/": false,
	} {
		if err := HTTPPath(s); (err == nil) != ok {
			t.Errorf("path %q: %v, want %v", s, err, ok)
		}
	}
	for s, ok := range map[string]bool{"localhost": true, "LOCALHOST": true, "127.0.0.1": true, "127.8.8.8": true, "::1": true, "localhost.example": false, "10.0.0.1": false, "": false, "0.0.0.0": false} {
		if got := Loopback(s); got != ok {
			t.Errorf("Loopback(%q) = %v", s, got)
		}
	}
	for s, want := range map[string]string{
		"https://a/b": "https://a/b", "https://u:p@a/b": "…@a/b", "https://a/b?c=d": "https://a/b?…", "https://u:p@a/b?c=@d": "…@a/b?…", "u:p@q@a": "…@a", "?": "?…",
	} {
		if got := ShownURL(s); got != want {
			t.Errorf("ShownURL(%q) = %q, want %q", s, got, want)
		}
	}
}

// What is taken for a secret in place of a file's name, and what is a name.
func TestIsContent(t *testing.T) {
	for s, want := range map[string]bool{
		"hvs." + strings.Repeat("x", 20): true, "hvb.AAAAAQ_-" + strings.Repeat("x", 90): true, "s." + strings.Repeat("x", 24): true,
		"7e0c5a36-2f5e-4a53-9a3e-0123456789ab": true, strings.Repeat("A", 43) + "=": true, strings.Repeat("0f", 32): true, "a\nb": true, "-----BEGIN PRIVATE KEY-----": true,
		"": false, "seal.key": false, "/etc/keyturn/seal.key": false, "secrets/token": false, "s.txt": false, "hvs.token": false, "credential:seal": false,
		"7e0c5a36-2f5e-4a53-9a3e-0123456789ab/token": false, "/run/secrets/" + strings.Repeat("0f", 32): false, "a b": false, "./hvs." + strings.Repeat("x", 20): false,
	} {
		if got := IsContent(s); got != want {
			t.Errorf("IsContent(%q) = %v", s, got)
		}
	}
}
