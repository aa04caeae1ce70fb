package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/internal/harden"
	"github.com/keyturn/keyturn/keyring"
)

// confine closes the process to all that it does not need from now on. All is
// open by then; what is opened again later (credentials, certificates, the
// configuration, the audit log, published files, name service) has a rule.
func (d *daemon) confine() (err error) {
	mode := d.options.Config.Hardening.Landlock
	if mode == configs.LandlockOff {
		d.log.Info("not confined, as hardening.landlock: off says")
		return nil
	}
	d.confined, err = harden.Confine(d.rules(), d.ports())
	switch {
	case errors.Is(err, harden.ErrNoLandlock) && mode == configs.LandlockAuto:
		d.log.Info("not confined", "reason", err)
		return nil
	case err != nil && mode == configs.LandlockAuto: // it signs without, as it would on an older kernel
		d.log.Warn("not confined", "reason", err)
		return nil
	case err != nil:
		return fmt.Errorf("hardening.landlock is required: %w: mend that, or say auto", err)
	}
	d.log.Info("confined", "landlock_abi", d.confined.ABI())
	return nil
}

// rules are the files and folders that a running daemon uses.
func (d *daemon) rules() []harden.Rule {
	cfg := d.options.Config
	rules := []harden.Rule{{Path: cfg.StateDir, Access: harden.Tree}, {Path: "/dev/null", Access: harden.Write}}
	add := func(access harden.Access, paths ...string) {
		for _, path := range paths {
			if path != "" {
				rules = append(rules, harden.Rule{Path: path, Access: access})
			}
		}
	}
	add(harden.Read, systemFiles()...)
	for _, file := range reread(cfg) {
		add(harden.Read, append(folders(file), above(file, "/run"))...)
	}
	if cfg.Store == configs.StoreLocal {
		add(harden.Tree, cfg.Local.Dir)
	}
	if cfg.Audit.File != "" {
		add(harden.Write, folders(cfg.Audit.File)...)
		if _, err := os.Stat(filepath.Dir(cfg.Audit.File)); err != nil { // it is not required, and opened when it can be
			add(harden.Write, above(cfg.Audit.File))
		}
	}
	for _, s := range cfg.Listen.Sign {
		add(harden.Sockets, filepath.Dir(s.Path))
	}
	add(harden.Sockets, filepath.Dir(cfg.Listen.Admin.Path))
	for _, file := range published(cfg) {
		add(harden.Write, above(file))
	}
	if dir := d.options.Scratch; dir != "" {
		add(harden.Tree, dir)
		add(harden.Vacate, filepath.Dir(dir))
	}
	return rules
}

// systemFiles are what Go's libraries read behind our backs: for names, time
// zones, certificate authorities, and metrics of the process. /etc as a whole,
// because what stands there is replaced and not rewritten (resolv.conf above
// all), and the kernel keeps the file of a rule, not its name.
func systemFiles() []string {
	paths := []string{
		"/etc", "/usr/share", "/usr/local/share", "/var/lib/ca-certificates", "/usr/lib", "/lib", "/lib64",
		"/proc/stat", fmt.Sprintf("/proc/%d", os.Getpid()),
	}
	// These are links out of /etc on many systems.
	for _, path := range []string{"/etc/resolv.conf", "/etc/localtime", "/etc/ssl/certs", "/etc/ssl/cert.pem", os.Getenv("SSL_CERT_FILE"), os.Getenv("ZONEINFO")} {
		if path != "" {
			paths = append(paths, folders(path)...)
		}
	}
	return append(paths, filepath.SplitList(os.Getenv("SSL_CERT_DIR"))...)
}

// reread are the files that are read again while the daemon runs: at SIGHUP and
// at each login. The key of the local custody is read once, and so is the
// authority of Vault's certificate.
func reread(cfg *configs.Config) []string {
	a := cfg.Vault.Auth
	files := []string{cfg.File, cfg.Listen.Public.TLS.CertFile, cfg.Listen.Public.TLS.KeyFile}
	if cfg.Store == configs.StoreVault {
		files = append(files, a.RoleIDFile, a.SecretIDFile, a.TokenFile)
	}
	return slices.DeleteFunc(files, func(file string) bool { return file == "" })
}

// published are the files that this daemon publishes.
func published(cfg *configs.Config) (files []string) {
	if !cfg.Has(configs.Publisher) {
		return nil
	}
	for _, i := range cfg.Issuers {
		for _, t := range i.Publish {
			if t.File != "" {
				files = append(files, t.File)
			}
		}
	}
	return files
}

// folders are where a file stands, and where it stands in truth if its path or
// it itself is a link: a new file comes to both.
func folders(file string) []string {
	dirs := []string{filepath.Dir(file)}
	if real, err := filepath.EvalSymlinks(file); err == nil {
		dirs = append(dirs, filepath.Dir(real))
	}
	return slices.Compact(dirs)
}

// above is what a rule for a file stands on: the folder above its own, so that
// its own may be mounted, removed and made anew. A folder right under the root, or
// one like /var/lib, is too much to give, unless it is among the wide ones: then it is its own folder,
// and what happens to that takes a restart, which an alarm tells. Of folders that
// are missing it is the nearest that is there, "" where that is too high.
func above(file string, wide ...string) string {
	dir := filepath.Dir(file)
	real, err := filepath.EvalSymlinks(dir)
	own := err == nil
	for ; err != nil && dir != "/"; real, err = filepath.EvalSymlinks(dir) {
		dir = filepath.Dir(dir)
	}
	fits := func(dir string) bool { return deep(dir) || slices.Contains(wide, dir) }
	switch {
	case own && fits(filepath.Dir(real)):
		return filepath.Dir(real)
	case own || fits(real):
		return real
	}
	return ""
}

// deep says that a folder is not the root, does not stand right under it, and is
// none in which every service of the host keeps its state.
func deep(dir string) bool {
	switch dir {
	case "/var/lib", "/var/log", "/var/cache", "/var/spool":
		return false
	}
	return strings.Count(dir, "/") > 1
}

// ports are those to which the daemon connects: Vault, confirm URLs, itself,
// proxies, and DNS where an answer is long. A number that cannot be read is
// left to who dials it to tell.
func (d *daemon) ports() []uint16 {
	cfg := d.options.Config
	ports := append([]uint16{53}, cfg.Hardening.ConnectPorts...)
	urls := []string{}
	if cfg.Store == configs.StoreVault {
		urls = append(urls, cfg.Vault.Address)
	}
	for _, i := range cfg.Issuers {
		urls = append(urls, i.Confirm...)
	}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		if proxy := os.Getenv(name); proxy != "" && !strings.Contains(proxy, "://") {
			urls = append(urls, "http://"+proxy)
		} else if proxy != "" {
			urls = append(urls, proxy)
		}
	}
	for _, text := range urls {
		if port, ok := portOf(text); ok {
			ports = append(ports, port)
		}
	}
	if d.public != nil {
		if addr, ok := d.public.Addr().(*net.TCPAddr); ok {
			ports = append(ports, uint16(addr.Port))
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

func portOf(text string) (uint16, bool) {
	u, err := url.Parse(text)
	if err != nil {
		return 0, false
	}
	text = u.Port()
	if text == "" {
		text = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	port, err := strconv.ParseUint(text, 10, 16)
	return uint16(port), err == nil && port > 0
}

// confinedAway says, behind an error that comes of it, that the process was
// confined before the path was named.
func (d *daemon) confinedAway(err error, files ...string) error {
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	for _, file := range files {
		switch {
		case file == "" || !d.confined.Lacks(file, harden.Read):
		case slices.ContainsFunc(reread(d.options.Config), func(named string) bool { return filepath.Dir(named) == filepath.Dir(file) }):
			return fmt.Errorf("%w: %s", err, madeAnew(filepath.Dir(file)))
		default:
			return fmt.Errorf("%w: keyturn confined itself at its start, when no setting named a file in %s: restart it, or put the file where the old one is (hardening.landlock)", err, filepath.Dir(file))
		}
	}
	return err
}

// madeAnew says of a folder that was named at the start why it is closed all the same.
func madeAnew(dir string) string {
	return dir + " was made or mounted after keyturn had confined itself, and is closed to it: restart keyturn (or hardening.landlock: off); so it is where a folder above it was exchanged"
}

// confinementAlarms tells of folders that are closed to the process, since they
// were made or mounted after it had confined itself.
func (d *daemon) confinementAlarms() (out []keyring.Alarm) {
	if d.confined == nil {
		return nil
	}
	closed := func(a keyring.Alarm, file string, access harden.Access) {
		dir := filepath.Dir(file)
		if _, err := os.Stat(dir); err != nil || !d.confined.Lacks(dir, access) {
			return // what is missing is told by those who need it
		}
		a.Code = "confined"
		a.Message = madeAnew(dir)
		out = append(out, a)
	}
	for _, file := range reread(d.options.Config) {
		closed(keyring.Alarm{}, file, harden.Read)
	}
	for _, i := range d.options.Config.Issuers {
		for _, t := range i.Publish {
			if t.File != "" && d.options.Config.Has(configs.Publisher) {
				closed(keyring.Alarm{Issuer: i.Name, Target: t.Name}, t.File, harden.Write)
			}
		}
	}
	return out
}
