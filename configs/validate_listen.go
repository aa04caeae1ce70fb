package configs

import (
	"strings"

	"github.com/keyturn/keyturn/configs/internal/syntax"
)

// listen checks sockets and addresses; that no two sockets are one is told with all paths.
func (v *validator) listen() {
	l := &v.cfg.Listen
	v.names("listen.sign", len(l.Sign), func(i int) string { return l.Sign[i].Name })
	for i, s := range l.Sign {
		path := at("listen.sign", i)
		v.socket(path, s.Path, s.Mode, s.Group)
		if n := s.ConnectionsPerUser; n < 1 || n > 200 {
			v.fault(path+".connections_per_user", "%d is out of range: a user may have 1 to 200 of the socket's 512 connections", n)
		}
	}
	if v.cfg.Has(Signer) && len(l.Sign) == 0 {
		v.fault("listen.sign", "is empty, and role signer signs for those who come through a socket: add one, or take listen.sign out for the default")
	}
	v.socket("listen.admin", l.Admin.Path, l.Admin.Mode, l.Admin.Group)
	for i, a := range l.Admin.Allow {
		if a.UID == nil && a.GID == nil {
			v.fault(at("listen.admin.allow", i), "is empty and would match everybody: name a uid or gid")
		}
	}
	v.public()
	if l.Status.Addr != StatusOff {
		v.check("listen.status.addr", syntax.ListenAddr(l.Status.Addr))
	}
	if l.Public.Addr != "" && l.Public.Addr == l.Status.Addr && !strings.HasSuffix(l.Public.Addr, ":0") {
		v.fault("listen.status.addr", "%s is the address of listen.public as well: choose another port", l.Status.Addr)
	}
}

func (v *validator) socket(path, file, mode, group string) {
	if v.need(path+".path", file, "where the socket is made, such as "+DefaultSignSocket) {
		v.check(path+".path", syntax.SocketPath(file))
	}
	v.check(path+".mode", syntax.SocketMode(mode))
	if group != "" {
		v.check(path+".group", syntax.Group(group))
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
	v.check(path+".addr", syntax.ListenAddr(p.Addr))
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
