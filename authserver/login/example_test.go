package login_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// The users of a configuration are a Database in memory, behind a rate limit like all other users.
func Example() {
	ctx := context.Background()
	customers, err := login.NewDatabase(store.NewMemory(0), "customer")
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := customers.Add(ctx, login.NewUser{Name: "Alice", Password: "a fence of nine oaks", ID: "alice"}); err != nil {
		fmt.Println(err)
		return
	}
	people, err := login.Limit(customers, login.Limits{})
	if err != nil {
		fmt.Println(err)
		return
	}

	u, err := people.Login(ctx, "192.0.2.1:4711", "alice", "a fence of nine oaks")
	fmt.Println(u.Subject, err)
	_, err = people.Login(ctx, "192.0.2.1:4711", "alice", "a guess")
	fmt.Println(errors.Is(err, login.ErrRefused), err)
	// Output:
	// customer:alice <nil>
	// true the name or the password is wrong
}
