package daemon

import (
	"encoding/json"
	"time"

	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/publisher"
	"github.com/keyturn/keyturn/signer/profile"
	"github.com/keyturn/keyturn/signer/request"
)

// What the parts take, from what the file says. Nothing is decided here.

func profiles(cfg *configs.Config) []profile.Config {
	var out []profile.Config
	for _, p := range cfg.Profiles {
		q := profile.Config{
			Name: p.Name, Ring: p.Ring, Type: p.Typ,
			Subject:   profile.Subject{Fixed: p.Subject.Fixed, FromPeer: p.Subject.FromPeer, Pattern: p.Subject.Pattern},
			Audiences: p.Audiences,
			Claims:    profile.Claims{Allow: p.Claims.Allow, Require: p.Claims.Require},
			TTL:       profile.TTL{Default: time.Duration(p.TTL.Default), Max: time.Duration(p.TTL.Max)},
			When:      p.When,
			Rate:      profile.Rate{PerSecond: p.Rate.PerSecond, Burst: p.Rate.Burst},
		}
		for _, a := range p.Allow {
			q.Allow = append(q.Allow, profile.Rule{Socket: a.Socket, UID: a.UID, GID: a.GID})
		}
		for _, c := range p.Claims.Add {
			q.Claims.Add = append(q.Claims.Add, request.Claim{Name: c.Name, Value: json.RawMessage(c.Value)})
		}
		out = append(out, q)
	}
	return out
}

// known is what profiles may refer to.
func known(cfg *configs.Config) profile.Known {
	out := profile.Known{Rings: rings(cfg)}
	for _, s := range cfg.Listen.Sign {
		out.Sockets = append(out.Sockets, s.Name)
	}
	return out
}

func rings(cfg *configs.Config) []profile.Ring {
	var out []profile.Ring
	for _, r := range cfg.Rings {
		out = append(out, profile.Ring{Name: r.Name, Issuer: r.Issuer, MaxTokenTTL: time.Duration(r.MaxTokenTTL)})
	}
	return out
}

// targets are what this process writes or reads back: a publisher its own
// targets and the shared ones, a rotator that runs apart the shared ones only.
func targets(cfg *configs.Config) []publisher.Issuer {
	var out []publisher.Issuer
	for _, i := range cfg.Issuers {
		issuer := publisher.Issuer{Name: i.Name, URL: i.URL}
		if cfg.Has(configs.Publisher) {
			for _, t := range i.Publish {
				issuer.Targets = append(issuer.Targets, publisher.Target{
					Name: t.Name, Kind: t.Kind(), File: t.File, HTTPPath: t.Path, View: t.View, Required: t.Required,
				})
			}
		}
		for _, u := range i.Confirm {
			issuer.Targets = append(issuer.Targets, publisher.Target{Name: u, Kind: keyring.TargetConfirm, ConfirmURL: u, Required: true})
		}
		out = append(out, issuer)
	}
	return out
}
