package configs

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"log/slog"
	"os/user"
	"slices"
	"strconv"

	"github.com/keyturn/keyturn/configs/internal/syntax"
	"github.com/keyturn/keyturn/configs/strictyaml"
)

// Stores of manifests and private halves.
const (
	StoreVault = "vault"
	StoreLocal = "local"
)

// Role is a part of keyturn's work that a daemon does.
type Role string

// The roles. A daemon has all of them unless its file says otherwise.
const (
	Rotator   Role = "rotator"
	Signer    Role = "signer"
	Publisher Role = "publisher"
)

// Roles lists them all, in the order of documentation.
func Roles() []Role { return []Role{Rotator, Signer, Publisher} }

// Config is the whole configuration as it holds: file, environment and flags
// together, defaults filled in, paths absolute. Durations are written with a
// unit: 90d, 1h30m, 500ms.
type Config struct {
	// File is where it was read from; for messages and reloads.
	File string `yaml:"-"`
	// Sum is that of the bytes of File; for reloads.
	Sum [sha256.Size]byte `yaml:"-"`
	// Lines are those of the fields in File, by path; for Fault.
	Lines map[string]int `yaml:"-"`
	// Store is where manifests and private halves live: vault or local. [vault]
	Store string `yaml:"store"`
	// StateDir keeps the high-water mark and the last public snapshot. Required.
	StateDir string `yaml:"state_dir"`
	// Replica names this daemon among those of an issuer: its audit log is
	// anchored under it. No two have the same. [the host's name]
	Replica string `yaml:"replica"`
	// Roles that this daemon has. [rotator, signer, publisher]
	Roles []Role `yaml:"roles,flow"`
	// SyncInterval is how often a replica reads the manifest. It counts in the
	// timing of every issuer, so replicas must agree on it. [10s]
	SyncInterval strictyaml.Duration `yaml:"sync_interval"`
	// Watch applies the file when it changes, as SIGHUP does. [true]
	Watch  bool   `yaml:"watch"`
	Log    Log    `yaml:"log,flow"`
	Vault  Vault  `yaml:"vault,omitempty"`
	Local  Local  `yaml:"local,omitempty"`
	Listen Listen `yaml:"listen"`
	// Issuers, Rings and Profiles are named; names are unique among their kind.
	Issuers   []Issuer  `yaml:"issuers"`
	Rings     []Ring    `yaml:"rings"`
	Profiles  []Profile `yaml:"profiles"`
	Audit     Audit     `yaml:"audit"`
	Hardening Hardening `yaml:"hardening,flow"`
}

// Log says what is logged, to standard error.
type Log struct {
	// Level is debug, info, warn or error. [info]
	Level string `yaml:"level"`
	// Format is json or text. [json]
	Format string `yaml:"format"`
}

// SlogLevel is the level for log/slog.
func (l Log) SlogLevel() slog.Level {
	var level slog.Level
	if level.UnmarshalText([]byte(l.Level)) != nil {
		return slog.LevelInfo // Validate lets no other level through
	}
	return level
}

// Vault is where the server is and how to log in. Used with store vault.
type Vault struct {
	// Address is https://host:port; http:// on loopback only. Required.
	Address string `yaml:"address"`
	// Insecure lets keys go over plain HTTP to another host. No file can say so:
	// only keyturn dev does.
	Insecure bool `yaml:"-"`
	// Namespace of Vault Enterprise. [none]
	Namespace string `yaml:"namespace,omitempty"`
	// CACertFile holds PEM certificates to trust. [those of the system]
	CACertFile string `yaml:"ca_cert_file,omitempty"`
	// Mount is a KV v2 mount with cas_required. [keyturn]
	Mount string `yaml:"mount"`
	// Timeout of one request. [5s]
	Timeout strictyaml.Duration `yaml:"timeout"`
	Auth    Auth                `yaml:"auth"`
}

// Methods of logging in to Vault.
const (
	AuthToken     = "token"      // the token in VAULT_TOKEN
	AuthTokenFile = "token_file" // a token in a file that others keep fresh
	AuthAppRole   = "approle"
)

// Auth is how the daemon logs in to Vault.
type Auth struct {
	// Method is token, token_file or approle. Required.
	Method string `yaml:"method"`
	// Mount of the auth method. [approle]
	Mount string `yaml:"mount,omitempty"`
	// RoleIDFile and SecretIDFile belong to approle. Required there. What the
	// files hold is sent as it is: a wrapping token must be unwrapped before.
	RoleIDFile   string `yaml:"role_id_file,omitempty"`
	SecretIDFile string `yaml:"secret_id_file,omitempty"`
	// TokenFile belongs to token_file. Required there.
	TokenFile string `yaml:"token_file,omitempty"`
	// Token is VAULT_TOKEN, for method token. It never stands in the file.
	Token strictyaml.Secret `yaml:"token,omitempty"`
}

// Local is the embedded custody. Used with store local.
type Local struct {
	// Dir holds the sealed private halves and the manifests. [state_dir/custody]
	Dir string `yaml:"dir"`
	// KeyFile seals them: 32 bytes, raw or in base64, readable by the daemon
	// alone. Required.
	KeyFile string `yaml:"key_file"`
}

// Listen is where the daemon can be talked to.
type Listen struct {
	// Sign sockets. [one, named default, at /run/keyturn/sign.sock, 0660]
	Sign  []SignSocket `yaml:"sign"`
	Admin AdminSocket  `yaml:"admin"`
	// Public serves the key sets. Required where an issuer has an http target.
	Public PublicListener `yaml:"public,omitempty"`
	Status StatusListener `yaml:"status"`
}

// SignSocket is one Unix socket for callers. Which socket a request came
// through counts in the profiles' allow.
type SignSocket struct {
	Name string `yaml:"name"`
	// Path of at most 107 bytes; its folder belongs to the daemon or root.
	Path string `yaml:"path"`
	// Mode of the socket, in octal and quoted. ["0660"]
	Mode string `yaml:"mode"`
	// Group that owns it, by name or number. [the daemon's own]
	Group string `yaml:"group,omitempty"`
	// ConnectionsPerUser is how many of its 512 connections one user may hold, 1
	// to 200. Who has all makes room with those that are idle. [64]
	ConnectionsPerUser int `yaml:"connections_per_user"`
}

// FileMode is the mode as a number.
func (s SignSocket) FileMode() fs.FileMode { return syntax.FileMode(s.Mode) }

// GID is the group's number; -1 leaves the group as it is.
func (s SignSocket) GID() (int, error) { return lookupGroup(s.Group) }

// AdminSocket is the Unix socket for operators.
type AdminSocket struct {
	// Path of at most 107 bytes. [/run/keyturn/admin.sock]
	Path string `yaml:"path"`
	// Mode of the socket, in octal and quoted. ["0600"]
	Mode string `yaml:"mode"`
	// Group that owns it, by name or number. [the daemon's own]
	Group string `yaml:"group,omitempty"`
	// Allow says who may use it, beyond the mode. [root and the daemon's own uid]
	Allow []Caller `yaml:"allow,omitempty,flow"`
}

// FileMode is the mode as a number.
func (s AdminSocket) FileMode() fs.FileMode { return syntax.FileMode(s.Mode) }

// GID is the group's number; -1 leaves the group as it is.
func (s AdminSocket) GID() (int, error) { return lookupGroup(s.Group) }

// Caller matches a caller of the admin socket. Fields are ANDed; an empty one
// is refused.
type Caller struct {
	UID *uint32 `yaml:"uid,omitempty"`
	// GID is the caller's primary or a supplementary group.
	GID *uint32 `yaml:"gid,omitempty"`
}

// PublicListener serves http targets.
type PublicListener struct {
	// Addr is host:port or :port. [none]
	Addr string `yaml:"addr"`
	TLS  TLS    `yaml:"tls,omitempty,flow"`
	// Insecure allows plain HTTP: behind a proxy that terminates TLS. [false]
	Insecure bool `yaml:"insecure,omitempty"`
}

// TLS is a certificate with its key, both PEM.
type TLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// StatusOff as the address of listen.status means that nobody listens.
const StatusOff = "off"

// StatusListener serves health and metrics, over plain HTTP.
type StatusListener struct {
	// Addr is host:port, :port or off. [127.0.0.1:9464]
	Addr string `yaml:"addr"`
}

// Audit is the log of what was signed, for whom.
type Audit struct {
	// File to which one JSON line a decision is appended. Required with the
	// roles signer or rotator.
	File string `yaml:"file,omitempty"`
	// Required refuses to sign while the line cannot be written. [true]
	Required bool `yaml:"required"`
	// AnchorInterval is how often the newest record's place in the chain is kept
	// beside the manifest, at least a second. [1m]
	AnchorInterval strictyaml.Duration `yaml:"anchor_interval"`
}

// Has reports whether this daemon has a role.
func (c *Config) Has(r Role) bool { return slices.Contains(c.Roles, r) }

// Issuer is the issuer of that name.
func (c *Config) Issuer(name string) (Issuer, bool) {
	return byName(c.Issuers, name, func(i Issuer) string { return i.Name })
}

// Ring is the ring of that name.
func (c *Config) Ring(name string) (Ring, bool) {
	return byName(c.Rings, name, func(r Ring) string { return r.Name })
}

// String names the configuration without its values.
func (c *Config) String() string {
	return fmt.Sprintf("configuration of %s (store %s, roles %v)", c.File, c.Store, c.Roles)
}

// LogValue keeps the values out of logs: only what tells one configuration
// from another.
func (c *Config) LogValue() slog.Value {
	return slog.GroupValue(slog.String("file", c.File), slog.String("store", c.Store), slog.Any("roles", c.Roles),
		slog.Int("issuers", len(c.Issuers)), slog.Int("rings", len(c.Rings)), slog.Int("profiles", len(c.Profiles)))
}

func byName[T any](list []T, name string, nameOf func(T) string) (T, bool) {
	for _, v := range list {
		if nameOf(v) == name {
			return v, true
		}
	}
	var none T
	return none, false
}

func lookupGroup(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(group, 10, 32); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, fmt.Errorf("group %q: %w: create it (groupadd --system %s) or give its number", group, err, group)
	}
	n, err := strconv.Atoi(g.Gid)
	if err != nil {
		return 0, fmt.Errorf("group %q has the gid %q, which is not a number", group, g.Gid)
	}
	return n, nil
}
