package keyturn_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestOperationsNamesEveryAlarm: an operator looks an alarm's code up in
// docs/operations.md, so each code of the sources is there, and no other.
func TestOperationsNamesEveryAlarm(t *testing.T) {
	compare(t, "alarm", alarmCodes(t), documented(t, "## Alarms", "`([a-z_]+)`"))
}

func alarmCodes(t *testing.T) map[string]bool {
	t.Helper()
	codes := names(t, `(?:\bCode:|\ba\.Code =|\bCode[A-Z]\w* +=|\bcode[A-Z]\w* +=|^\tCode[A-Z]\w* +keyring\.\w+ =)\s*"([a-z_]+)"`,
		"keyring", "rotator", "publisher", "signer", "signer/keys", "admin", "cmd/keyturn/internal/daemon")
	// The signer's come from the problems and the errors that stop a key.
	for _, code := range []string{"signing_lapsed", "no_active_key", "key_missing", "key_mismatch", "key_denied", "key_not_loaded"} {
		codes[code] = true
	}
	return codes
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

// TestFaults: docs/faults.md tells all of the faults, and names nothing that
// there is not: no alarm, no metric, no line of the log, no test.
func TestFaults(t *testing.T) {
	said := alarmCodes(t)
	maps.Copy(said, names(t, `"(keyturn_[a-z_]+)"`, "admin"))
	maps.Copy(said, names(t, `EventKind = "([a-z_]+)"`, "keyring"))
	maps.Copy(said, names(t, `Code += "([a-z_]+)"`, "api"))
	logged := names(t, `"([^"\n]+)"`, "rotator", "publisher", "signer", "signer/keys", "signer/socket", "custody/vaultsession", "custody/vaultkv", "internal/unixsock", "cmd/keyturn/internal/daemon")
	tests := testNames(t)
	rows := faults(t)
	if len(rows) != 43 {
		t.Errorf("%d faults, want 43", len(rows))
	}
	for i, cells := range rows {
		if len(cells) != 6 || cells[0] != strconv.Itoa(i+1) || cells[1] == "" || cells[2] == "" || cells[5] == "" {
			t.Errorf("row %d is %q", i+1, cells)
			continue
		}
		for _, m := range regexp.MustCompile("`([a-z_]+)[`{]").FindAllStringSubmatch(cells[3], -1) {
			if !said[m[1]] {
				t.Errorf("row %s names %s, which is no alarm, event, answer or metric", cells[0], m[1])
			}
		}
		for _, m := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(cells[3], -1) {
			if !logged[m[1]] {
				t.Errorf("row %s quotes %q, which nobody logs", cells[0], m[1])
			}
		}
		for name := range strings.SplitSeq(cells[5], ", ") {
			if !tests[name] {
				t.Errorf("row %s names the test %s, which there is not", cells[0], name)
			}
		}
	}
}

// faults are the rows of the table in docs/faults.md, by their cells.
func faults(t *testing.T) [][]string {
	t.Helper()
	doc, err := os.ReadFile("docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for line := range strings.Lines(string(doc)) {
		if !regexp.MustCompile(`^\| \d+ \|`).MatchString(line) {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}

// testNames are the tests and fuzz targets of the tree: those of e2e alone,
// those of a package after its folder's name.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		folder := filepath.Base(filepath.Dir(path)) + "."
		if folder == "e2e." {
			folder = ""
		}
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(src, -1) {
			found[folder+string(m[1])] = true
		}
		return err
	})
	if err != nil || !found["TestDev"] {
		t.Fatalf("%d tests found: %v", len(found), err)
	}
	return found
}
