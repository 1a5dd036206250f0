// Package drivers contains the parts that only the full build of the command has.
package drivers

import (
	"context"

	"github.com/valetkey/valetkey/adapters/valetopenapi"
	"github.com/valetkey/valetkey/authserver/ldaplogin"
	"github.com/valetkey/valetkey/authserver/pgstore"
	"github.com/valetkey/valetkey/authserver/sqlitestore"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/cmd/valetkey/full/celrules"
	"github.com/valetkey/valetkey/cmd/valetkey/full/extauthz"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

// All returns the set of all drivers.
func All() driver.Set {
	return driver.Set{
		SQLite:     func(path string) (store.Store, error) { return sqlitestore.Open(path) },
		PostgreSQL: func(ctx context.Context, url string) (store.Store, error) { return pgstore.Open(ctx, url) },
		LDAP:       directory,
		OpenAPI:    valetopenapi.Routes,
		CEL:        celrules.CEL,
		ExtAuthz:   extauthz.New,
	}
}

func directory(d driver.Directory) (driver.Login, error) {
	opened, err := ldaplogin.New(ldaplogin.Config{
		URL: d.URL, RootCAs: d.RootCAs, BindDN: d.BindDN, BindPassword: d.Password, BaseDN: d.BaseDN, Filter: d.Filter, ID: d.ID,
		Display: d.Display, Groups: d.Groups, Type: d.Type, Timeout: d.Timeout, PoolSize: d.PoolSize,
		InsecurePlain: d.InsecurePlain, Logger: d.Logger,
	})
	if err != nil {
		return nil, err
	}
	return opened, nil
}
