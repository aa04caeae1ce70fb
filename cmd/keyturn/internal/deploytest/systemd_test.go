package deploytest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unit is a systemd unit: the values of each directive of [Service], in order.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	directives, section := map[string][]string{}, ""
	for line := range strings.Lines(read(t, "deploy/systemd/keyturn.service")) {
		line = strings.TrimSpace(line)
		switch name, value, ok := strings.Cut(line, "="); {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = line
		case !ok:
			t.Fatalf("%q is no directive", line)
		case section == "[Service]":
			directives[name] = append(directives[name], value)
		}
	}
	return directives
}

func TestSystemdCommandLine(t *testing.T) {
	start := unit(t)["ExecStart"]
	if len(start) != 1 {
		t.Fatalf("ExecStart = %q, want one line", start)
	}
	words := strings.Fields(start[0])
	if filepath.Base(words[0]) != "keyturn" {
		t.Errorf("ExecStart runs %s", words[0])
	}
	parse(t, words[1:])
}

// TestSystemdConfiguration loads the configuration beside the unit, and checks
// that the unit lets the daemon reach each path in it.
func TestSystemdConfiguration(t *testing.T) {
	cfg, u := load(t, "deploy/systemd/keyturn.yaml"), unit(t)
	var writable, readable []string
	for directive, base := range map[string]string{"RuntimeDirectory": "/run", "StateDirectory": "/var/lib", "LogsDirectory": "/var/log"} {
		for _, name := range u[directive] {
			writable = append(writable, filepath.Join(base, name))
		}
	}
	for _, c := range u["LoadCredential"] {
		name, _, _ := strings.Cut(c, ":")
		readable = append(readable, "/run/credentials/keyturn.service/"+name)
	}
	for _, path := range files(cfg) {
		ok := slices.ContainsFunc(writable, func(dir string) bool { return under(path, dir) }) || slices.Contains(readable, path)
		if !ok {
			t.Errorf("the unit does not let the daemon reach %s: it has %q, and the credentials %q", path, writable, readable)
		}
	}
	filters := u["SystemCallFilter"]
	for _, s := range cfg.Listen.Sign {
		// @chown is in @privileged, so the last word on it must be a yes.
		if s.Group != "" && filters[len(filters)-1] != "@chown" {
			t.Errorf("socket %s goes to a group, and the unit's system calls %q do not allow that", s.Path, filters)
		}
		if s.Group != "" && !slices.Contains(append(u["Group"], u["SupplementaryGroups"]...), s.Group) {
			t.Errorf("socket %s goes to the group %q, which the unit's user is not in", s.Path, s.Group)
		}
	}
}

// TestSystemdCallers: callers have a group of their own, which owns nothing but
// the sign socket; sysusers makes it. A container gets a directory of its own.
func TestSystemdCallers(t *testing.T) {
	const file = "deploy/systemd/keyturn.yaml"
	// The example of a container, as somebody would take it up.
	uncommented := strings.ReplaceAll(read(t, file), "# - {name", "- {name")
	path := filepath.Join(t.TempDir(), "keyturn.yaml")
	if err := os.WriteFile(path, []byte(uncommented), 0o600); err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(here, path)
	if err != nil {
		t.Fatal(err)
	}
	cfg, u, users := load(t, rel), unit(t), read(t, "deploy/systemd/keyturn.sysusers")
	if len(cfg.Listen.Sign) != 2 || len(load(t, file).Listen.Sign) != 1 {
		t.Fatalf("sockets %+v, want one, and one more as an example", cfg.Listen.Sign)
	}
	for _, s := range cfg.Listen.Sign {
		if s.Group == "" || slices.Contains(u["Group"], s.Group) || s.FileMode()&0o007 != 0 {
			t.Errorf("socket %s, group %q, mode %s: callers must be in a group that is not the daemon's %q", s.Path, s.Group, s.Mode, u["Group"])
		}
		if !slices.Contains(u["SupplementaryGroups"], s.Group) || !strings.Contains(users, "\ng "+s.Group+" -\n") {
			t.Errorf("the group %q is made by no sysusers file, or the daemon is not in it", s.Group)
		}
	}
	if a := cfg.Listen.Admin; a.FileMode()&0o077 != 0 || a.Group != "" {
		t.Errorf("the admin socket %+v is open to others than the daemon's uid and root", a)
	}
	shared, own := filepath.Dir(cfg.Listen.Admin.Path), filepath.Dir(cfg.Listen.Sign[1].Path)
	if filepath.Dir(own) != shared || own == filepath.Dir(cfg.Listen.Sign[0].Path) {
		t.Errorf("the container's directory %s is not one of its own in %s", own, shared)
	}
	if !strings.Contains(uncommented, own+":") {
		t.Errorf("the example does not mount %s", own)
	}
}

// TestSystemdHardening pins what SECURITY.md says of the unit.
func TestSystemdHardening(t *testing.T) {
	u := unit(t)
	for name, want := range map[string]string{
		"NoNewPrivileges": "true", "ProtectSystem": "strict", "ProtectHome": "true", "PrivateTmp": "true", "PrivateDevices": "true",
		"LimitCORE": "0", "MemorySwapMax": "0", "CapabilityBoundingSet": "", "MemoryDenyWriteExecute": "true",
		"StateDirectoryMode": "0700", "UMask": "0077", "User": "keyturn",
	} {
		if got := u[name]; len(got) != 1 || got[0] != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if filters := strings.Join(u["SystemCallFilter"], " "); !strings.Contains(filters, " landlock_create_ruleset landlock_add_rule landlock_restrict_self ") {
		t.Errorf("the unit's system calls %q do not let keyturn confine itself", filters)
	}
	// Either would make every caller of the sockets uid 65534, or hide the state behind a symlink.
	for _, name := range []string{"PrivateUsers", "DynamicUser"} {
		if got, ok := u[name]; ok {
			t.Errorf("%s = %q must not be set", name, got)
		}
	}
}
