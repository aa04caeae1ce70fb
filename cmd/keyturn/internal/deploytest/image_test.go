package deploytest

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

type instruction struct{ name, rest string }

// dockerfile is the image's instructions, in order.
func dockerfile(t *testing.T) []instruction {
	t.Helper()
	var out []instruction
	for line := range strings.Lines(strings.ReplaceAll(read(t, "Dockerfile"), "\\\n", " ")) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		out = append(out, instruction{name, strings.TrimSpace(rest)})
	}
	return out
}

// buildContext copies into a new folder what docker build would see: .dockerignore
// excludes everything, names what comes in, and drops the tests again.
func buildContext(t *testing.T) string {
	t.Helper()
	var keep []string
	for line := range strings.Lines(read(t, ".dockerignore")) {
		line = strings.TrimSpace(line)
		switch name, in := strings.CutPrefix(line, "!"); {
		case in:
			keep = append(keep, name)
		case !slices.Contains([]string{"", "*", "**/*_test.go", "**/testdata"}, line) && line[0] != '#':
			t.Fatalf(".dockerignore: %q is a pattern that this test does not know", line)
		}
	}
	dir := t.TempDir()
	for _, name := range keep {
		err := filepath.WalkDir(filepath.Join(root, name), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			switch {
			case err != nil:
				return err
			case d.IsDir() && d.Name() == "testdata":
				return fs.SkipDir
			case d.IsDir():
				return os.MkdirAll(filepath.Join(dir, rel), 0o755)
			case strings.HasSuffix(d.Name(), "_test.go"):
				return nil
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, rel), b, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestImageBuilds runs the image's build line in its context, and the program
// that comes out.
func TestImageBuilds(t *testing.T) {
	dir, out := buildContext(t), t.TempDir()
	var built []string
	for _, in := range dockerfile(t) {
		switch {
		case in.name == "COPY" && !strings.HasPrefix(in.rest, "--from="):
			words := strings.Fields(in.rest)
			for _, src := range words[:len(words)-1] {
				if _, err := os.Stat(filepath.Join(dir, src)); err != nil {
					t.Errorf("COPY %s: not in the context: %v", in.rest, err)
				}
			}
		case in.name == "COPY":
			src := strings.Fields(in.rest)[1]
			if !slices.Contains(built, src) && src != "/etc/ssl/certs/ca-certificates.crt" {
				t.Errorf("COPY %s: the first stage does not make %s", in.rest, src)
			}
		case in.name == "RUN" && strings.Contains(in.rest, "go build"):
			path := regexp.MustCompile(`-o (\S+)`).FindStringSubmatch(in.rest)[1]
			built = append(built, path)
			here := filepath.Join(out, filepath.Base(path))
			build := exec.Command("sh", "-c", strings.Replace(in.rest, "-o "+path, "-o "+here, 1))
			build.Dir, build.Env = dir, append(os.Environ(), "VERSION=v9.8.7-test")
			if b, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", in.rest, err, b)
			}
			b, err := exec.Command(here, "version").CombinedOutput()
			if err != nil || !strings.Contains(string(b), "v9.8.7-test") {
				t.Errorf("keyturn version: %v: %s; want the version that the build was given", err, b)
			}
		}
	}
	if len(built) != 1 {
		t.Errorf("the image builds %q, want one binary", built)
	}
}

// TestImageRuns: the last stage holds nothing but the binary and runs it as
// somebody else than root, with a command line that exists.
func TestImageRuns(t *testing.T) {
	last := map[string]string{}
	for _, in := range dockerfile(t) {
		if in.name == "FROM" {
			clear(last)
		}
		last[in.name] = in.rest
	}
	if last["FROM"] != "scratch" {
		t.Errorf("FROM %s", last["FROM"])
	}
	if !regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*$`).MatchString(last["USER"]) {
		t.Errorf("USER %q: want the numbers of a user and a group that are not root", last["USER"])
	}
	var entry, args []string
	for name, into := range map[string]*[]string{"ENTRYPOINT": &entry, "CMD": &args} {
		if err := json.Unmarshal([]byte(last[name]), into); err != nil {
			t.Fatalf("%s %s: scratch has no shell, so it must be a list: %v", name, last[name], err)
		}
	}
	if !strings.HasSuffix(last["COPY"], " "+entry[0]) {
		t.Errorf("ENTRYPOINT %s is not where the binary is: COPY %s", entry[0], last["COPY"])
	}
	parse(t, append(entry[1:], args...))
}

// TestImageIsPinned: a base image is named to the patch release, one that can
// build the module, and the file says how to pin its bytes.
func TestImageIsPinned(t *testing.T) {
	pinned := regexp.MustCompile(`^golang:(1\.[0-9]+)\.[0-9]+-[a-z]+(@sha256:[0-9a-f]{64})? AS build$`)
	for _, in := range dockerfile(t) {
		if in.name != "FROM" || in.rest == "scratch" {
			continue
		}
		tag := pinned.FindStringSubmatch(in.rest)
		if tag == nil {
			t.Errorf("FROM %s: name the release to its last number", in.rest)
			continue
		}
		if !strings.Contains(read(t, "go.mod"), "\ngo "+tag[1]+".") {
			t.Errorf("FROM %s: go.mod is of another release of Go", in.rest)
		}
		if base, _, _ := strings.Cut(strings.Fields(in.rest)[0], "@"); !strings.Contains(read(t, "Dockerfile"), "imagetools inspect "+base+" ") {
			t.Errorf("the Dockerfile does not say how to find the digest of %s", base)
		}
	}
}
