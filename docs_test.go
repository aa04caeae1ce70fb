package keyturn_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestOperationsNamesEveryAlarm: an operator looks an alarm's code up in
// docs/operations.md, so each code of the sources is there, and no other.
func TestOperationsNamesEveryAlarm(t *testing.T) {
	codes := names(t, `(?:\bCode:|\ba\.Code =|\bCode[A-Z]\w* +=|\bcode[A-Z]\w* +=|^\tCode[A-Z]\w* +keyring\.\w+ =)\s*"([a-z_]+)"`,
		"keyring", "rotator", "publisher", "signer", "admin", "cmd/keyturn/internal/daemon")
	// The signer's come from the problems and the errors that stop a key.
	for _, code := range []string{"signing_lapsed", "no_active_key", "key_missing", "key_mismatch", "key_denied", "key_not_loaded"} {
		codes[code] = true
	}
	compare(t, "alarm", codes, documented(t, "## Alarms", "`([a-z_]+)`"))
}

func TestOperationsNamesEveryMetric(t *testing.T) {
	compare(t, "metric", names(t, `"(keyturn_[a-z_]+)"`, "admin"), documented(t, "## Metrics", "`(keyturn_[a-z_]+)"))
}

// names are the matches of a pattern in the sources of some folders.
func names(t *testing.T, pattern string, folders ...string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, folder := range folders {
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no sources under %s: %v", folder, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile("(?m)"+pattern).FindAllSubmatch(src, -1) {
				found[string(m[1])] = true
			}
		}
	}
	return found
}

// documented are the names in the first column of a section's table.
func documented(t *testing.T, heading, pattern string) map[string]bool {
	t.Helper()
	doc, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "\n"+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	found := map[string]bool{}
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(strings.Split(line, "|")[1], -1) {
			found[m[1]] = true
		}
	}
	return found
}

func compare(t *testing.T, what string, sources, docs map[string]bool) {
	t.Helper()
	if len(sources) == 0 || len(docs) == 0 {
		t.Fatalf("found %d in the sources, %d in the docs: the pattern is out of date", len(sources), len(docs))
	}
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		if !docs[name] {
			t.Errorf("docs/operations.md does not tell the %s %s", what, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(docs)) {
		if !sources[name] {
			t.Errorf("docs/operations.md tells a %s %s that nothing raises", what, name)
		}
	}
}
