// What the tests include is compiled here, once.
