package configs

import (
	"regexp"
	"strings"
)

// maxSocketPath is what sun_path holds on Linux, without its NUL.
const maxSocketPath = 107

// listen checks sockets and addresses, and that no two are the same.
func (v *validator) listen() {
	l := &v.cfg.Listen
	v.names("listen.sign", len(l.Sign), func(i int) string { return l.Sign[i].Name })
	taken := map[string]string{}
	for i, s := range l.Sign {
		path := at("listen.sign", i)
		v.socket(path, s.Path, s.Mode, s.Group, taken)
		if n := s.ConnectionsPerUser; n < 1 || n > 200 {
			v.fault(path+".connections_per_user", "%d is out of range: a user may have 1 to 200 of the socket's 512 connections", n)
		}
	}
	if v.cfg.Has(Signer) && len(l.Sign) == 0 {
		v.fault("listen.sign", "is empty, and role signer signs for those who come through a socket: add one, or take listen.sign out for the default")
	}
	v.socket("listen.admin", l.Admin.Path, l.Admin.Mode, l.Admin.Group, taken)
	for i, a := range l.Admin.Allow {
		if a.UID == nil && a.GID == nil {
			v.fault(at("listen.admin.allow", i), "is empty and would match everybody: name a uid or gid")
		}
	}
	v.public()
	if l.Status.Addr != StatusOff {
		if err := listenAddr(l.Status.Addr); err != nil {
			v.fault("listen.status.addr", "%v", err)
		}
	}
	if l.Public.Addr != "" && l.Public.Addr == l.Status.Addr && !strings.HasSuffix(l.Public.Addr, ":0") {
		v.fault("listen.status.addr", "%s is the address of listen.public as well: choose another port", l.Status.Addr)
	}
}

var (
	modeSyntax  = regexp.MustCompile(`^0?[0-7]{3}$`)
	groupSyntax = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*\$?$`)
)

func (v *validator) socket(path, file, mode, group string, taken map[string]string) {
	if v.need(path+".path", file, "where the socket is made, such as "+DefaultSignSocket) {
		if len(file) > maxSocketPath {
			v.fault(path+".path", "%s is %d bytes long, and a socket's path holds %d: choose a shorter one", file, len(file), maxSocketPath)
		}
		if other := taken[file]; other != "" {
			v.fault(path+".path", "%s is the path of %s as well: choose another", file, other)
		}
		taken[file] = path
	}
	switch {
	case !modeSyntax.MatchString(mode):
		v.fault(path+".mode", `%q is no mode: write three octal digits in quotes, such as "0660"`, mode)
	case fileMode(mode)&^0o666 != 0:
		v.fault(path+".mode", "%q: a socket has read and write bits only; 0660 lets its group connect", mode)
	case fileMode(mode)&0o600 != 0o600:
		v.fault(path+".mode", `%q keeps the daemon's own user out: begin with 06`, mode)
	}
	if group != "" && !groupSyntax.MatchString(group) {
		v.fault(path+".group", "%q is no name of a group", group)
	}
}

func (v *validator) public() {
	p := v.cfg.Listen.Public
	const path = "listen.public"
	if p.Addr == "" {
		if v.src.lines[path] > 0 {
			v.follows(path+".addr", "is missing: host:port or :port, such as :8443")
		}
		return
	}
	if err := listenAddr(p.Addr); err != nil {
		v.fault(path+".addr", "%v", err)
	}
	hasTLS := p.TLS != TLS{}
	switch {
	case hasTLS && p.Insecure:
		v.fault(path+".insecure", "is true beside tls: keep one of them")
	case hasTLS:
		v.need(path+".tls.cert_file", p.TLS.CertFile, "the PEM file of the certificate and its chain")
		v.need(path+".tls.key_file", p.TLS.KeyFile, "the PEM file of the certificate's key")
	case !p.Insecure:
		v.follows(path, "needs tls: {cert_file: …, key_file: …}, or insecure: true where a proxy in front of it has the certificate")
	}
}
