from pref_toolkit.cli import main

raise SystemExit(main())
