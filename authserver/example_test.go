package authserver_test

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"golang.org/x/oauth2/clientcredentials"

	"github.com/valetkey/valetkey/authserver"
)

// A server on a free port of this machine, and a client that requests a token.
func Example() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	cfg := authserver.Demo()
	cfg.Issuer = "http://" + listener.Addr().String()
	server, err := authserver.New(context.Background(), cfg)
	if err != nil {
		panic(err)
	}
	web := &http.Server{Handler: server}
	defer web.Close()
	go web.Serve(listener)

	client := clientcredentials.Config{
		ClientID:     "orders-reader",
		ClientSecret: "demo-secret-of-orders-reader",
		TokenURL:     server.Issuer() + "/oauth2/token",
	}
	token, err := client.Token(context.Background())
	if err != nil {
		panic(err)
	}
	fmt.Println(token.Type(), token.Extra("scope"))
	// Output: Bearer orders:read
}
