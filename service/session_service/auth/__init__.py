"""Who calls: principals and tenants."""
