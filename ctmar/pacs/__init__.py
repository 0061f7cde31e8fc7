"""A node on the hospital network: receives series, corrects those with metal, sends them on (`ctmar serve`)."""
